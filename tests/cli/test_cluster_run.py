"""``evento run`` in a cluster: it waits for a server, and says in one line why it cannot run there."""

from __future__ import annotations

import asyncio
import signal
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, a_cluster
from nats_server import free_port, nats_server
from running_server import free_settings
from shop import OrderAggregate
from waiting import eventually

from evento.server.server import EventoServer
from evento.server.tokens import TokenFile

MODULE = """
    from evento import EventoBundle, Service, ServiceCommand, command_handler

    class {command}(ServiceCommand[None]):
        order_id: str

    class ShippingService(Service):
        @command_handler
        def ship(self, command: {command}) -> None:
            pass

    bundle = EventoBundle("shipping", components=[ShippingService], cluster="{cluster}")
"""


def write_module(folder: Path, *, command: str = "ParcelSendCommand", cluster: str = "test") -> None:
    (folder / "shop_app.py").write_text(textwrap.dedent(MODULE).format(command=command, cluster=cluster))


async def said(process: Any, words: str) -> str:
    """Wait until the process has said something, and return all up to it."""
    lines: list[str] = []
    async with asyncio.timeout(40):
        while line := await asyncio.to_thread(process.stderr.readline):
            lines.append(line)
            if words in line:
                return "".join(lines)
    raise AssertionError(f"it ended and did not say {words!r}: {''.join(lines)}")


async def ended(process: Any, number: signal.Signals | None = None) -> int:
    if number is not None:
        process.send_signal(number)
    code: int = await asyncio.to_thread(process.wait, 30)
    return code


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with a_cluster(tmp_path) as running:
        yield running


async def test_a_bundle_runs_in_the_cluster_until_a_signal(cluster: Cluster, process: Any, tmp_path: Path) -> None:
    write_module(tmp_path)
    run = process("run", "shop_app:bundle", "--server", cluster.url)
    await said(run, " runs; ")
    [seen] = await cluster.registry.view()
    assert (seen.bundle_id, seen.enabled, seen.pid) == ("shipping", True, run.pid)
    assert await ended(run, signal.SIGTERM) == 0

    async def gone() -> bool:
        return await cluster.registry.view() == []

    await eventually(gone, within=10)  # it does not wait for long until its leave is answered; its lease is longer


async def test_it_waits_for_a_gateway_and_for_a_server_behind_it_and_says_so(process: Any, tmp_path: Path) -> None:
    write_module(tmp_path)
    port = free_port()
    run = process("run", "shop_app:bundle", "--server", f"nats://127.0.0.1:{port}")
    await said(run, f"waiting for an Evento Server at nats://127.0.0.1:{port}")
    async with nats_server(tmp_path, port=port) as nats:
        await said(run, "waiting for an Evento Server that registers this bundle: a gateway answers, but no server")
        cluster = Cluster(tmp_path, nats)
        await cluster.start_server()
        await said(run, " runs; ")
        assert await ended(run, signal.SIGTERM) == 0
        await cluster.stop_server()


async def test_a_signal_ends_the_wait_for_a_server(process: Any, tmp_path: Path) -> None:
    write_module(tmp_path)
    run = process("run", "shop_app:bundle", "--server", "nats://127.0.0.1:1")
    await said(run, "waiting for an Evento Server")
    assert await ended(run, signal.SIGTERM) == 0
    assert "Traceback" not in await asyncio.to_thread(run.stderr.read)


async def test_the_wait_has_the_end_that_it_is_given(shell: Any, tmp_path: Path) -> None:
    write_module(tmp_path)
    result = await asyncio.to_thread(
        lambda: shell("run", "shop_app:bundle", "--server", "nats://127.0.0.1:1", "--start-timeout", "0.3")
    )
    assert result.code == 1
    last = result.err.splitlines()[-1]
    assert last.startswith("evento: shop_app:bundle could not start: no Evento Server answers within 0.3 s")
    assert "Traceback" not in result.err


async def test_a_command_of_another_bundle_is_one_clear_line(cluster: Cluster, shell: Any, tmp_path: Path) -> None:
    write_module(tmp_path, command="OrderPlaceCommand")
    async with cluster.bundle("orders", [OrderAggregate]):
        result = await asyncio.to_thread(lambda: shell("run", "shop_app:bundle", "--server", cluster.url))
    assert result.code == 1
    last = result.err.splitlines()[-1]
    assert last.startswith("evento: shop_app:bundle could not start: the command 'OrderPlaceCommand' is handled by ")
    assert "'orders'" in last
    assert "'shipping'" in last
    assert "Traceback" not in result.err


async def test_the_token_comes_from_a_file_or_the_environment(process: Any, shell: Any, tmp_path: Path) -> None:
    write_module(tmp_path, cluster="shop")
    settings = free_settings(tmp_path / "data")
    token = TokenFile(settings.token_file).create("shipping")
    file = tmp_path / "token"
    file.write_text(f"{token}\n")
    async with EventoServer(settings) as server:
        where = ("run", "shop_app:bundle", "--server", server.gateway_url)
        for argv, environment in (
            ((*where, "--token-file", file), {}),
            (where, {"EVENTO_TOKEN": token}),
        ):
            run = process(*argv, **environment)
            told = await said(run, " runs; ")
            assert token not in told
            assert await ended(run, signal.SIGTERM) == 0

            async def gone() -> bool:
                assert server._registry is not None
                return await server._registry.view() == []

            await eventually(gone)
        file.write_text("another")
        result = await asyncio.to_thread(lambda: shell(*where, "--token-file", file))
        assert result.code == 1
        assert "could not start: " in result.err.splitlines()[-1]
        assert "check its token" in result.err.splitlines()[-1]
