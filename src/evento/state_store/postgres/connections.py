"""Connections: how they are made, and how they are held and replaced.

Every connection states what the store relies on when it begins, so that no default of a server, database or role can
take it away.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import TypeAlias, TypeVar

import asyncpg

from evento.errors import DefinitionError, Overloaded, StoreUnavailable
from evento.state_store.postgres import failures
from evento.state_store.postgres.address import Address

__all__ = ["Connection", "Connector", "Connections", "at_start", "close", "patiently", "pauses"]

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_CONNECT_SECONDS = 10.0
_GRACE_SECONDS = 5.0
"""How much later than the server, which ends a statement after ``timeout``, this side gives a connection up."""
_CLOSE_SECONDS = 2.0
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""Seconds of silence until the system asks the other side, between questions, and how many of them; TCP_KEEPALIVE is
macOS's name of the first. It also keeps the connection known to what is in between, such as a NAT."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
_OLDEST_SERVER = (14, 0)
_TRANSACTION_TIMEOUT_SINCE = (17, 0)
_logger = logging.getLogger("evento.store")

_PROMISES = {
    # Under "repeatable read" a statement behind the lock would not see what the one before it has committed.
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "synchronous_commit": "on",
    "array_nulls": "on",  # how arrays.py writes what is not there
    "idle_session_timeout": "0",
    "client_min_messages": "warning",
}
# Each statement is planned once for the life of its connection, whatever the tables hold by then and without
# statistics, so that the plan must be right for any size: ranges of indexes, joined by nested loops, without sorting.
_PLANS = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_sort": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_hashagg": "off",
    "enable_indexscan": "on",
    "enable_indexonlyscan": "on",
    "enable_nestloop": "on",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
}


class Connector:
    """Makes connections to one database. ``timeout`` (seconds) bounds each statement, and each wait for a lock."""

    def __init__(self, address: Address, *, timeout: float, read_only: bool) -> None:
        self.address = address
        self.timeout = timeout
        self._read_only = read_only

    async def connect(self, *, for_bulk: bool = False) -> Connection:
        """Connect; ``for_bulk`` leaves plans to the server's judgement and lets statements take their time.

        :raises StoreUnavailable: the database cannot be used now; nothing has happened.
        """
        try:
            connection: Connection = await asyncpg.connect(
                self.address.url,
                timeout=min(_CONNECT_SECONDS, self.timeout),
                command_timeout=None if for_bulk else self.timeout + _GRACE_SECONDS,
                server_settings=self._settings(for_bulk),
            )
        except asyncpg.ClientConfigurationError as error:
            raise DefinitionError(f"{self.address}: {error}") from error
        except failures.FAILURES as error:
            raise failures.unavailable(error, self.address) from error
        except ValueError as error:  # a URL that only the driver finds wrong; its text may hold the password
            raise DefinitionError(f"{self.address}: its URL is malformed") from error
        try:
            self._watch(connection._transport.get_extra_info("socket"))
            await self._check(connection, for_bulk)
        except BaseException as error:
            connection.terminate()
            raise failures.translated(error, self.address) from error
        return connection

    def _watch(self, connected: socket.socket) -> None:
        """Have the system end a connection whose other side is not there any more: nobody else would notice."""
        if connected.family not in (socket.AF_INET, socket.AF_INET6):
            return
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        unacknowledged = int((self.timeout + _GRACE_SECONDS) * 1000)
        for name, value in {**_KEEPALIVE, "TCP_USER_TIMEOUT": unacknowledged}.items():
            if (option := getattr(socket, name, None)) is not None:
                connected.setsockopt(socket.IPPROTO_TCP, option, value)

    async def _check(self, connection: Connection, for_bulk: bool) -> None:
        if self._read_only:  # not earlier: target_session_attrs=read-write is about the server
            await connection.execute("SET default_transaction_read_only = on")
        version = connection.get_server_version()
        if (version.major, version.minor) < _OLDEST_SERVER:
            raise StoreUnavailable(f"{self.address}: PostgreSQL {version.major} is too old, use 14 or newer")
        encoding = connection.get_settings().server_encoding
        if encoding != "UTF8":
            raise StoreUnavailable(
                f"{self.address}: the database is encoded in {encoding}, which cannot keep every text: "
                "create it with ENCODING 'UTF8'"
            )
        if (version.major, version.minor) >= _TRANSACTION_TIMEOUT_SINCE and not for_bulk:
            # Also for the moment between a statement and the end of its transaction, if this process is paused there.
            await connection.execute(f"SET transaction_timeout = {int(self.timeout * 1000) + 1000}")

    def _settings(self, for_bulk: bool) -> Mapping[str, str]:
        milliseconds = str(int(self.timeout * 1000))
        schema = self.address.schema.replace('"', '""')
        return {
            "application_name": "evento-store",
            # The temporary schema is last, so that nothing in it can stand for a table of ours.
            "search_path": f'"{schema}", pg_temp',
            "default_transaction_read_only": "off",
            "statement_timeout": "0" if for_bulk else milliseconds,
            "lock_timeout": milliseconds,
            "idle_in_transaction_session_timeout": "0" if for_bulk else milliseconds,
            **_PROMISES,
            **({} if for_bulk else _PLANS),
        }


class Connections:
    """A number of connections that are held, lent one operation at a time, and replaced when they are lost.

    More than ``max_waiting`` operations that wait for one is :class:`Overloaded`. A connection whose operation ended
    without an answer of the database, because it was cancelled, is not lent again: it may be one that never answers.
    """

    def __init__(self, connector: Connector, *, size: int, max_waiting: int) -> None:
        self._connector = connector
        self._max_waiting = max_waiting
        self._size = self._room = size
        self._idle: list[Connection] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closing: set[asyncio.Task[None]] = set()
        self._busy = 0
        self._unused = asyncio.Event()
        self._unused.set()

    async def open(self) -> None:
        """Make the first connection, to know that it can be done."""
        async with self.lend(0):
            pass

    async def aclose(self) -> None:
        """Wait for the operations under way, then close all connections."""
        await self._unused.wait()
        await asyncio.gather(*self._closing)
        idle, self._idle = self._idle, []
        await asyncio.gather(*map(close, idle))

    async def run(self, operation: Callable[[Connection], Awaitable[T]], *, again: bool = True) -> T:
        """Run an operation on a connection; when that is lost, on another one.

        ``again=False`` is for writes that must not be done twice: their loss is an indeterminate
        :class:`StoreUnavailable`.
        """
        self._begin()  # until it ends, also between two attempts
        try:
            return await self._run(operation, again)
        finally:
            self._end()

    async def _run(self, operation: Callable[[Connection], Awaitable[T]], again: bool) -> T:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._connector.timeout
        maybe_done = False
        waits = pauses()
        while True:
            try:
                async with self.lend(deadline) as connection:
                    return await operation(connection)
            except StoreUnavailable as error:
                error.definite = error.definite and not maybe_done
                raise
            except failures.FAILURES as error:
                if not failures.is_lost(error):
                    raise failures.unavailable(error, self._connector.address) from error
                maybe_done = maybe_done or not again
                if not again or loop.time() >= deadline:
                    raise failures.unavailable(error, self._connector.address, definite=not maybe_done) from error
            await asyncio.sleep(next(waits))

    @asynccontextmanager
    async def lend(self, deadline: float) -> AsyncIterator[Connection]:
        """Lend a connection, a new one where there is none; after ``deadline`` (loop time) trying ends.

        :raises StoreUnavailable: there is none to be had in time; nothing has happened.
        """
        await self._enter(deadline)
        try:
            connection = self._take() or await patiently(self._connector, deadline)
        except BaseException:
            self._leave()
            raise
        try:
            yield connection
        except BaseException as error:
            if failures.is_lost(error):
                connection.terminate()
            elif not isinstance(error, asyncpg.PostgresError):
                self._give_up(connection)
                raise
            self._put_back(connection)
            raise
        self._put_back(connection)

    def _put_back(self, connection: Connection) -> None:
        if not connection.is_closed():
            self._idle.append(connection)
        self._leave()

    def _give_up(self, connection: Connection) -> None:
        """Close a connection that may be in the middle of an operation; its place is free again once it is gone.

        Closing it properly cancels what the server does for it. Else an overload in which callers give up would have
        the server work for more and more sessions that nobody listens to, until it takes no more of them.
        """
        task = asyncio.create_task(close(connection), name="evento-store-close")
        self._closing.add(task)
        task.add_done_callback(self._gave_up)

    def _gave_up(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        self._leave()

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    async def _enter(self, deadline: float) -> None:
        self._begin()
        try:
            if self._room:
                self._room -= 1
                return
            if len(self._waiting) >= self._max_waiting:
                raise Overloaded(
                    f"the event store has too much to do: {len(self._waiting):,} operations wait; try again later",
                    operations=len(self._waiting),
                )
            await self._turn(deadline)
        except BaseException:
            self._end()
            raise

    async def _turn(self, deadline: float) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout_at(deadline):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._pass_on()
            if not isinstance(error, TimeoutError):
                raise
            raise StoreUnavailable(
                f"{self._connector.address}: each of its {self._size} connections was busy for "
                f"{self._connector.timeout:g} s: look what is slow in pg_stat_activity, or allow more (connections=)"
            ) from None

    def _leave(self) -> None:
        self._pass_on()
        self._end()

    def _pass_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._room += 1

    def _begin(self) -> None:
        self._busy += 1
        self._unused.clear()

    def _end(self) -> None:
        self._busy -= 1
        if not self._busy:
            self._unused.set()


def pauses() -> Iterator[float]:
    """Yield how many seconds to wait before each new attempt."""
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE)


async def patiently(connector: Connector, deadline: float) -> Connection:
    """Connect, trying again until ``deadline`` (loop time), and not less long, while the server cannot be reached."""
    loop = asyncio.get_running_loop()
    waits = pauses()
    told = False
    while True:
        try:
            return await connector.connect()
        except StoreUnavailable as error:
            left = deadline - loop.time()
            if left <= 0:
                raise
            if not told:
                _logger.warning("%s; trying again", error)
                told = True
        await asyncio.sleep(min(left, next(waits)))


async def at_start(connector: Connector) -> Connection:
    """Connect: a server that starts up or recovers is waited for, whatever else is wrong is told at once."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + connector.timeout
    while True:
        try:
            return await connector.connect()
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, asyncpg.CannotConnectNowError) or loop.time() >= deadline:
                raise
            _logger.warning("%s", error)
        await asyncio.sleep(_LONGEST_PAUSE)


async def close(connection: Connection) -> None:
    """Close a connection, with good manners if the server has them too."""
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):  # the driver's own timeout is not for all that it waits for
            await connection.close()
    except failures.FAILURES:
        connection.terminate()
