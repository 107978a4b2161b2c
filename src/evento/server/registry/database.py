"""RegistryDatabase: instances, their leases, who handles which name, and the catalogue, in an SQL database."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any

import msgspec
from sqlalchemy import and_, delete, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from evento.databases import database_now, probe, steady_clock
from evento.errors import (
    AuthenticationError,
    DefinitionError,
    EventoError,
    NotFound,
    PayloadError,
    RequestTimeout,
    Stopped,
    StoreUnavailable,
)
from evento.messages.registration import BundleDescription, InstanceView, Register, Registered, Session
from evento.server.registry.engine import open_engine, place
from evento.server.registry.schema import MAX_NAME, bundles, instances, migrate, names, schema_version

__all__ = ["RegistryDatabase"]

_NOT_UP_YET = "57P03"
"""PostgreSQL's state while it starts up or recovers."""
_LOST_A_RACE = (IntegrityError, OperationalError, ProgrammingError)
_FAILURES = (DBAPIError, PoolTimeoutError, OSError, TimeoutError)
_Name = tuple[str, str]
_LEFT = 0
"""The number of a session of an instance that has left."""
_names_decoder = msgspec.json.Decoder(list[tuple[str, str]])


class RegistryDatabase:
    """Keeps the registry of one cluster; all servers of the cluster share the database, and its clock judges leases.

    With SQLite there is one server, and the clock is one of its process, which setting the host's does not move.

    :param url: ``sqlite+aiosqlite:///FILE``, or ``postgresql://...`` with libpq's parameters, as the event store's.
    :param cluster: several clusters may share a database.
    :param schema: where the tables are; it must exist. None: where the database puts tables of this user.
    :param lease: seconds that an instance lives without a heartbeat.
    :param server: the name of this server, noted with what registers through it.
    :param timeout: seconds that one operation may take.

    Every operation is one transaction; those of one server run one after another, and so do the registrations of all.
    """

    def __init__(
        self,
        url: str,
        *,
        cluster: str,
        schema: str | None = None,
        lease: float = 15.0,
        server: str = "",
        timeout: float = 10.0,
    ) -> None:
        self._url = url
        self._schema = schema
        self._cluster = cluster
        self._lease = lease
        self._server = server
        self._timeout = timeout
        self._gate: AbstractAsyncContextManager[Any] = nullcontext()
        self._steady: Callable[[], int] | None = None
        self._where = url
        self._engine: AsyncEngine | None = None
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> RegistryDatabase:
        """Connect and bring the tables up to date.

        :raises SchemaTooNew: a newer Evento wrote them.
        :raises StoreUnavailable: the database cannot be reached or written.
        """
        engine = open_engine(self._url, schema=self._schema, timeout=self._timeout)
        self._where = place(engine, self._url, self._schema)
        self._gate = asyncio.Lock()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(engine.dispose)
            try:
                if engine.dialect.name == "sqlite":
                    await probe(engine.url)
                    await stack.enter_async_context(engine.connect())  # keeps a database in memory
                await self._migrate(engine)
                if engine.dialect.name == "sqlite":
                    await self._keep_time(engine)
            except EventoError:
                raise
            except (*_FAILURES, sqlite3.Error) as error:
                raise StoreUnavailable(f"the registry in {self._where} cannot be opened: {error}") from error
            self._engine = engine
            self._exit = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close all connections."""
        self._engine = None
        await self._exit.aclose()

    async def _migrate(self, engine: AsyncEngine) -> None:
        deadline = asyncio.get_running_loop().time() + self._timeout
        attempts = 0
        while True:
            attempts += 1
            try:
                async with asyncio.timeout(self._timeout), engine.begin() as connection:
                    await connection.run_sync(migrate, self._where)
                return
            except DBAPIError as error:
                if error.connection_invalidated or getattr(error.orig, "sqlstate", None) == _NOT_UP_YET:
                    hopeless = asyncio.get_running_loop().time() >= deadline
                else:  # two servers may make the tables at the same time: the one that loses looks again
                    hopeless = attempts == 5 or not isinstance(error, _LOST_A_RACE)
                if hopeless:
                    raise
            await asyncio.sleep(min(0.1 * attempts, 0.5))

    async def _keep_time(self, engine: AsyncEngine) -> None:
        """Go by a clock that nobody sets, and let no lease of a former run last longer than a lease does.

        One process has the file, and the host's clock may have been set since it was written.
        """
        self._steady = steady_clock()
        now = self._steady()
        async with engine.begin() as connection:
            for column, latest in ((instances.c.lease_until, now + self._micros()), (instances.c.beat_at, now)):
                await connection.execute(update(instances).where(column > latest).values({column: latest}))

    # Instances ---------------------------------------------------------------------------------------------------

    async def register(self, call: Register) -> Registered:
        """Make an instance known, or renew what is known of it, as a new session.

        :raises DefinitionError: another bundle with a living instance handles one of its commands or queries.
        :raises AuthenticationError: the instance id is that of another bundle's instance.
        :raises RequestTimeout: its sender has given up.
        :raises Stopped: the instance has left.
        :raises PayloadError: a name or number is none that the tables can hold.
        """
        _check(call)
        for attempt in range(1, 4):
            try:
                async with self._transaction() as connection:
                    return await self._register(connection, call)
            except IntegrityError as error:  # another server was faster with one of the rows
                if attempt == 3:
                    raise StoreUnavailable(f"the registry in {self._where} is written by others: {error}") from error
        raise AssertionError

    async def _register(self, connection: AsyncConnection, call: Register) -> Registered:
        # This row lets registrations in one after another, at whichever server: no two of them wait for each other.
        await connection.execute(select(schema_version.c.version).with_for_update())
        now = await self._now(connection)
        _require_waited_for(call.deadline, now)
        about = call.description
        claimed = sorted(
            {*(("command", name) for name in about.commands), *(("query", name) for name in about.queries)}
        )
        known = await connection.execute(
            select(instances.c.bundle, instances.c.session).where(self._is(call.instance_id))
        )
        row = known.first()
        if row is not None and row.bundle != about.bundle_id:
            raise AuthenticationError(
                f"the instance {call.instance_id} belongs to the bundle {row.bundle!r}: use an id of your own"
            )
        if row is not None and row.session == _LEFT:
            raise Stopped(f"the instance {call.instance_id} of {about.bundle_id!r} has left: start it with another id")
        await self._claim(connection, about.bundle_id, claimed, now)
        session = Session(about.bundle_id, call.instance_id, (row.session if row is not None else 0) + 1)
        values = {
            "bundle": about.bundle_id,
            "version": about.version,
            "session": session.number,
            "enabled": call.enabled,
            "beat_at": now,
            "lease_until": now + self._micros(),
            "names": msgspec.json.encode(claimed).decode(),
            "host": call.host,
            "pid": call.pid,
            "started_at": call.started_at,
            "server": self._server,
        }
        if row is None:
            await connection.execute(
                insert(instances).values(cluster=self._cluster, instance=call.instance_id, **values)
            )
        else:
            await connection.execute(update(instances).where(self._is(call.instance_id)).values(**values))
        await self._catalogue(connection, about, now)
        await connection.execute(  # those that ended long ago
            delete(instances).where(
                instances.c.cluster == self._cluster, instances.c.lease_until < now - 40 * self._micros()
            )
        )
        return Registered(session, self._lease, now)

    async def _claim(self, connection: AsyncConnection, bundle: str, claimed: Sequence[_Name], now: int) -> None:
        owners = {
            (row.kind, row.name): row.bundle
            for row in await connection.execute(
                select(names.c.kind, names.c.name, names.c.bundle).where(names.c.cluster == self._cluster)
            )
        }
        for kind, name in claimed:
            owner = owners.get((kind, name))
            if owner == bundle:
                continue
            if owner is None:
                await connection.execute(
                    insert(names).values(cluster=self._cluster, kind=kind, name=name, bundle=bundle)
                )
                continue
            if await self._lives(connection, owner, (kind, name), now):
                raise DefinitionError(
                    f"the {kind} {name!r} is handled by the bundle {owner!r}, which runs, and by {bundle!r}: a {kind} "
                    "has one handler in the whole system; rename one, or stop the other bundle first",
                    kind=kind,
                    name=name,
                    owner=owner,
                )
            await connection.execute(
                update(names)
                .where(names.c.cluster == self._cluster, names.c.kind == kind, names.c.name == name)
                .values(bundle=bundle)
            )

    async def _lives(self, connection: AsyncConnection, bundle: str, name: _Name, now: int) -> bool:
        """Whether a bundle has a living instance that handles a name."""
        rows = await connection.execute(
            select(instances.c.names).where(
                instances.c.cluster == self._cluster, instances.c.bundle == bundle, instances.c.lease_until > now
            )
        )
        return any(name in _names_decoder.decode(row.names) for row in rows)

    async def _catalogue(self, connection: AsyncConnection, about: BundleDescription, now: int) -> None:
        """Keep the newest version's description: during a rolling restart the old one must not come back."""
        where = and_(bundles.c.cluster == self._cluster, bundles.c.bundle == about.bundle_id)
        known = await connection.scalar(select(bundles.c.version).where(where))
        values = {"version": about.version, "description": msgspec.json.encode(about).decode(), "updated_at": now}
        if known is None:
            await connection.execute(insert(bundles).values(cluster=self._cluster, bundle=about.bundle_id, **values))
        elif known <= about.version:
            await connection.execute(update(bundles).where(where).values(**values))

    async def time(self) -> int:
        """Return the time by which leases and deadlines are judged, in microseconds since 1970."""
        async with self._transaction() as connection:
            return await self._now(connection)

    async def beat(self, session: Session, *, enabled: bool | None = None, deadline: int = 0) -> Registered:
        """Renew a session's lease, and set whether it is enabled where that is given.

        :raises NotFound: the session is void, or its lease is over, so that another bundle may have its names by now:
            the instance must register again.
        :raises RequestTimeout: its sender has given up, at ``deadline``.
        """
        async with self._transaction() as connection:
            now = await self._now(connection)
            _require_waited_for(deadline, now)
            values: dict[str, Any] = {"beat_at": now, "lease_until": now + self._micros()}
            if enabled is not None:
                values["enabled"] = enabled
            held = and_(self._of(session), instances.c.lease_until > now)
            changed = await connection.execute(update(instances).where(held).values(**values))
        if not changed.rowcount:
            raise NotFound(f"the session of the instance {session.instance_id} is over: register it again")
        return Registered(session, self._lease, now)

    async def leave(self, session: Session, *, deadline: int = 0) -> bool:
        """End an instance for good; False when the session is void, and nothing changed.

        Its id is kept for many leases, so that a registration that was under way elsewhere does not revive it.

        :raises RequestTimeout: its sender has given up, at ``deadline``.
        """
        async with self._transaction() as connection:
            now = await self._now(connection)
            _require_waited_for(deadline, now)
            ended = update(instances).where(self._of(session))
            gone = await connection.execute(ended.values(session=_LEFT, enabled=False, lease_until=now, names="[]"))
        return session.number != _LEFT and bool(gone.rowcount)

    async def view(self, bundle: str | None = None) -> list[InstanceView]:
        """Return the living instances, those of one bundle or all, in the order of bundles and starts."""
        async with self._transaction() as connection:
            now = await self._now(connection)
            wanted = select(instances).where(instances.c.cluster == self._cluster, instances.c.lease_until > now)
            if bundle is not None:
                wanted = wanted.where(instances.c.bundle == bundle)
            rows = list(await connection.execute(wanted.order_by(instances.c.bundle, instances.c.started_at)))
        return [
            InstanceView(
                bundle_id=row.bundle,
                instance_id=row.instance,
                version=row.version,
                enabled=row.enabled,
                heartbeat_age=max(0, now - row.beat_at) / 1_000_000,
                host=row.host,
                pid=row.pid,
                started_at=row.started_at,
                server=row.server,
            )
            for row in rows
        ]

    async def catalogue(self, *, after: str = "", max_bytes: int = 4 * 1024 * 1024) -> list[BundleDescription]:
        """Return what bundles told of themselves, also those that do not run now, in the order of their ids.

        :param after: begin after this bundle id.
        :param max_bytes: return no more than these bytes of descriptions, but at least one: ask again for the rest.
        """
        found: list[BundleDescription] = []
        wanted = (
            select(bundles.c.description)
            .where(bundles.c.cluster == self._cluster, bundles.c.bundle > after)
            .order_by(bundles.c.bundle)
        )
        async with self._transaction() as connection, connection.stream(wanted) as rows:
            async for row in rows:
                max_bytes -= len(row.description.encode())
                if found and max_bytes < 0:
                    break
                found.append(msgspec.json.decode(row.description, type=BundleDescription))
        return found

    # Inside ------------------------------------------------------------------------------------------------------

    def _is(self, instance_id: str) -> Any:
        return and_(instances.c.cluster == self._cluster, instances.c.instance == instance_id)

    def _of(self, session: Session) -> Any:
        return and_(
            self._is(session.instance_id),
            instances.c.bundle == session.bundle_id,
            instances.c.session == session.number,
        )

    def _micros(self) -> int:
        return int(self._lease * 1_000_000)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        if self._engine is None:
            raise StoreUnavailable("the registry is not open: use it inside `async with`")
        try:
            async with asyncio.timeout(self._timeout), self._gate, self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except TimeoutError as error:
            raise StoreUnavailable(
                f"the registry in {self._where} did not answer within {self._timeout:g} s: look whether its database "
                "is overloaded or locked"
            ) from error
        except _FAILURES as error:
            raise StoreUnavailable(f"the registry in {self._where} cannot be reached: {error}") from error

    async def _now(self, connection: AsyncConnection) -> int:
        if self._steady is not None:
            return self._steady()
        now = await connection.scalar(select(database_now()))
        assert now is not None  # noqa: S101 - a constant expression
        return int(now)


def _require_waited_for(deadline: int, now: int) -> None:
    if 0 < deadline < now:
        error = RequestTimeout(
            f"the sender gave up {(now - deadline) / 1_000_000:.3f} s ago, by the cluster's time: nothing was done",
            time=now,
        )
        error.definite = True
        raise error


def _check(call: Register) -> None:
    """Refuse what one database would cut, or not take."""
    about = call.description
    for what, name in (
        ("bundle id", about.bundle_id),
        ("instance id", call.instance_id),
        *(("command", name) for name in about.commands),
        *(("query", name) for name in about.queries),
    ):
        if not 0 < len(name) <= MAX_NAME or "\0" in name:
            raise PayloadError(
                f"the {what} {name[:40]!r}... is no name: use 1 to {MAX_NAME} characters, none of them NUL"
            )
    if "\0" in call.host:
        raise PayloadError("the host holds a NUL character: leave it out")
    for what, number, most in (
        ("version", about.version, 2**31 - 1),
        ("pid", call.pid, 2**63 - 1),
        ("start", call.started_at, 2**63 - 1),
    ):
        if not -most <= number <= most:
            raise PayloadError(f"the {what} {number} cannot be kept: it must be within {most}")
