"""The connections that read: none that may never answer is used again, and nobody waits for one without end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine

import asyncpg
import pytest
import uvloop
from appending_worker import event
from tcp_proxy import tcp_proxy
from waiting import eventually, turns

from evento.errors import StoreUnavailable
from evento.state_store import Append
from evento.state_store.postgres import PostgresStateStore, reader
from evento.state_store.postgres.address import Address
from evento.state_store.postgres.connections import Connection, Connections, Connector, close
from evento.testing.postgres import PostgresServer

BLOCKED = "SELECT pid FROM pg_stat_activity WHERE pg_blocking_pids(pid) @> ARRAY[$1::integer]"


async def cancelled(*reads: asyncio.Task[object]) -> None:
    for read in reads:
        read.cancel()
    await asyncio.gather(*reads, return_exceptions=True)
    assert all(read.cancelled() for read in reads)


async def test_connections_that_were_lost_silently_are_given_up_with_their_reads(
    postgres: PostgresServer, postgres_schema: str
) -> None:
    """As a server does at the deadline of a request."""
    async with tcp_proxy(postgres.port) as proxy:
        url = postgres.url.replace(f":{postgres.port}/", f":{proxy.port}/")
        async with PostgresStateStore(url, schema=postgres_schema, connections=2, timeout=8) as store:
            await store.append(Append(event("ORD_1")))
            await asyncio.gather(*(store.story("ORD_1") for _ in range(4)))
            proxy.forget()
            for _ in range(2):
                read = asyncio.create_task(store.story("ORD_1"))
                await turns()
                await cancelled(read)
            for _ in range(4):
                assert (await store.story("ORD_1")).version == 1


async def test_reads_that_are_given_up_end_in_the_database_before_others_begin(
    postgres: PostgresServer, postgres_schema: str
) -> None:
    """Else callers who give up sooner than their reads end would fill the database with sessions."""
    admin, blocker = await asyncpg.connect(postgres.url), await asyncpg.connect(postgres.url)
    async with PostgresStateStore(postgres.url, schema=postgres_schema, connections=2) as store, blocker.transaction():
        await blocker.execute(f"LOCK TABLE {postgres_schema}.streams IN ACCESS EXCLUSIVE MODE")

        former, now = set[int](), set[int]()

        async def both_wait() -> bool:
            nonlocal now
            now = {pid for (pid,) in await admin.fetch(BLOCKED, blocker.get_server_pid())}
            assert len(now) <= 2
            return len(now - former) == 2

        for _ in range(5):
            reads = [asyncio.create_task(store.story("ORD_1")) for _ in range(2)]
            await eventually(both_wait)
            former |= now
            await cancelled(*reads)
    await blocker.close()
    await admin.close()


async def test_a_connection_is_waited_for_until_the_timeout(postgres: PostgresServer, postgres_schema: str) -> None:
    connector = Connector(Address(postgres.url, postgres_schema), timeout=0.2, read_only=False)
    connections = Connections(connector, size=1, max_waiting=10)
    async with connections.lend(asyncio.get_running_loop().time() + 30):
        with pytest.raises(StoreUnavailable, match=r"each of its 1 connections was busy for 0.2 s") as caught:
            await connections.run(reader.head)
        assert caught.value.definite
        assert str(postgres.port) in str(caught.value)
    async with connections.lend(asyncio.get_running_loop().time() + 30) as connection:  # no place was lost
        assert await connection.fetchval("SELECT 1") == 1
    await connections.aclose()


async def test_closing_waits_for_an_operation_that_is_between_two_attempts(
    postgres: PostgresServer, postgres_schema: str
) -> None:
    connector = Connector(Address(postgres.url, postgres_schema), timeout=30, read_only=False)
    connections = Connections(connector, size=1, max_waiting=10)
    used: list[Connection] = []
    lost = asyncio.Event()

    async def end_the_first_session(connection: Connection) -> None:
        used.append(connection)
        try:
            if len(used) == 1:
                await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        finally:
            lost.set()

    running = asyncio.create_task(connections.run(end_the_first_session))
    await lost.wait()
    await connections.aclose()
    assert running.done()
    assert len(used) == 2
    assert all(connection.is_closed() for connection in used)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_the_system_notices_that_the_other_side_is_gone(
    postgres: PostgresServer, run: Callable[[Coroutine[None, None, None]], None]
) -> None:
    async def check() -> None:
        connection = await Connector(Address(postgres.url, "evento"), timeout=30, read_only=False).connect()
        connected = connection._transport.get_extra_info("socket")
        assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 35_000
        await close(connection)

    run(check())
