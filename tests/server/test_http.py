"""The HTTP interface answers, whoever else holds connections to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from running_server import free_settings
from waiting import eventually

from evento.server.health import Health
from evento.server.http import HttpServer, application


async def nothing() -> bytes:
    return b""


async def get(server: HttpServer, path: str) -> int:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"http://{server.address}{path}", timeout=20)).status_code


@asynccontextmanager
async def client(server: HttpServer, sent: bytes = b"") -> AsyncIterator[asyncio.StreamReader]:
    """Connect and send these bytes alone."""
    reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
    try:
        writer.write(sent)
        yield reader
    finally:
        writer.close()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the server ends the connection."""
    received = b""
    try:
        while data := await reader.read(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


@pytest.mark.parametrize("sent", [b"", b"GET /health/live HTTP/1.1\r\nHost: x\r\n"], ids=["nothing", "half a head"])
async def test_who_sends_no_request_holds_nobody_up_and_is_gone_soon(tmp_path: Path, sent: bytes) -> None:
    settings = free_settings(tmp_path, auth_timeout=3.0)
    async with HttpServer(settings, application(Health(), nothing)) as server, AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(client(server, sent)) for _ in range(120)]
        assert await get(server, "/health/live") == 200
        for reader in silent:
            assert await ended(reader) == b""


async def test_a_connection_is_for_one_request(tmp_path: Path) -> None:
    request = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    async with (
        HttpServer(free_settings(tmp_path), application(Health(), nothing)) as server,
        client(server, request + request) as reader,
    ):
        answer = await ended(reader)

    assert answer.count(b"HTTP/1.1 200") == 1
    assert b"connection: close" in answer


async def test_one_connection_too_many_takes_the_place_of_the_oldest(tmp_path: Path) -> None:
    settings = free_settings(tmp_path, auth_timeout=300.0)
    async with (
        HttpServer(settings, application(Health(), nothing), max_connections=2) as server,
        client(server) as oldest,
        client(server),
    ):
        assert await get(server, "/health/live") == 200
        assert await ended(oldest) == b""


async def test_only_so_many_read_the_metrics_at_the_same_time(tmp_path: Path) -> None:
    asked, answered = 0, asyncio.Event()

    async def slow() -> bytes:
        nonlocal asked
        asked += 1
        await answered.wait()
        return b""

    async with HttpServer(free_settings(tmp_path), application(Health(), slow)) as server:
        reading = [asyncio.create_task(get(server, "/metrics")) for _ in range(10)]
        await eventually(lambda: asked == 10)
        assert await get(server, "/metrics") == 503
        assert await get(server, "/health/live") == 200
        answered.set()
        assert await asyncio.gather(*reading) == [200] * 10
        assert await get(server, "/metrics") == 200
