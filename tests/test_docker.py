"""The files for containers name what is there: no container engine is needed to see that."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

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
