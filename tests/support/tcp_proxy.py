"""A TCP proxy that can cut what goes through it, or silently lose it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Recovering", "TcpProxy", "tcp_proxy"]


class TcpProxy:
    """Passes connections on to a port of this host, until they are cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._forgotten: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.refusing = False

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self, *, refuse: bool = False) -> None:
        """End all connections at once; with ``refuse`` also those that come later."""
        self.refusing = refuse
        for writer in self._writers:
            writer.transport.abort()

    def forget(self) -> None:
        """Let all connections be, but pass nothing on, as a NAT does that has forgotten them; later ones work."""
        self._forgotten |= self._writers

    async def stop(self) -> None:
        """End."""
        assert self._server is not None
        self._server.close()
        self.cut(refuse=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            there_reader, there = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, there}
        try:
            await asyncio.gather(self._pump(reader, there), self._pump(there_reader, writer))
        finally:
            self._writers -= {writer, there}
            self._forgotten -= {writer, there}
            for one in (writer, there):
                one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if writer not in self._forgotten:
                    writer.write(data)
                    await writer.drain()
        if writer not in self._forgotten:
            writer.transport.abort()


class Recovering(TcpProxy):
    """A way to a PostgreSQL that recovers while the first connection is made."""

    FIELDS = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is in recovery mode\0\0"
    connections = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.connections > 1:
            return await super()._serve(reader, writer)
        await reader.read(1024)  # asks for TLS
        writer.write(b"N")
        await reader.read(1024)
        writer.write(b"E" + (len(self.FIELDS) + 4).to_bytes(4, "big") + self.FIELDS)
        writer.close()
        return None


@asynccontextmanager
async def tcp_proxy(target: int) -> AsyncIterator[TcpProxy]:
    """Run a proxy for a while."""
    proxy = TcpProxy(target)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
