"""The files for containers name what is there: no container engine is needed to see that."""

import asyncio
import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from certificates import Certificates
from running_server import free_settings

from evento.server.server import EventoServer
from evento.server.settings import keys

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    content = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    services: dict[str, Any] = content["services"]
    assert set(services) == {"postgres", "server", "commands", "queries", "reactions"}
    return services


def settings_in(text: str) -> set[str]:
    return {word.split("=")[0].strip() for word in text.split() if word.startswith("EVENTO_ES_") and "=" in word}


def test_the_image_sets_only_what_the_server_knows() -> None:
    known = {key.variable for key in keys()}
    found = settings_in((ROOT / "docker/Dockerfile").read_text())
    assert found
    assert found <= known


@pytest.mark.parametrize("tls", [False, True], ids=["HTTP", "HTTPS"])
async def test_the_image_sees_whether_its_server_is_ready(tmp_path: Path, tls: bool) -> None:
    settings = free_settings(tmp_path / "data")
    if tls:
        cert, key = Certificates(tmp_path).make("server")
        settings = replace(settings, tls_cert=cert, tls_key=key)
    async with EventoServer(settings) as server:
        address = server.http_url.partition("//")[2]
        assert await checked(address) == 0
        server.health.add("part", not_ready)
        assert await checked(address) == 1
    assert await checked(address) == 1


async def checked(address: str) -> int:
    """Return how the image's health check ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", str(ROOT / "docker/healthcheck.py")),
        env={"EVENTO_ES_HTTP": address},
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await process.wait()


async def not_ready() -> str | None:
    return "it is not"


def test_the_composition_sets_only_what_the_server_knows(services: dict[str, Any]) -> None:
    known = {key.variable for key in keys()}
    assert {name for name in services["server"]["environment"] if name.startswith("EVENTO_ES_")} <= known


@pytest.mark.parametrize("name", ["commands", "queries", "reactions"])
def test_the_bundles_are_there(services: dict[str, Any], name: str) -> None:
    service = services[name]
    target = service["entrypoint"][-1] if name == "queries" else service["command"][-1]
    module, _, attribute = target.partition(":")
    assert callable(getattr(importlib.import_module(module), attribute))


def test_no_secret_is_in_the_files() -> None:
    text = (ROOT / "docker/compose.yaml").read_text()
    for line in text.splitlines():
        if "PASSWORD" in line and ":" in line and not line.lstrip().startswith("#"):
            assert "${EVENTO_DB_PASSWORD:?" in line
    assert "${EVENTO_DB_PASSWORD:?" in text


def test_the_gateway_is_not_published(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") and not port.endswith(":3030") for port in ports)
