"""Lost connections and servers that end: nothing that was acknowledged is lost, and nothing is stored twice."""

from __future__ import annotations

import asyncio
import random
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import msgspec
import pytest
from appending_worker import event
from waiting import eventually, turns

from evento.errors import ErrorData, StoreUnavailable
from evento.state_store import AlreadyStored, Append, Appended, Refused
from evento.state_store.postgres import PostgresStateStore
from evento.testing.postgres import PostgresServer, start_postgres

CALLERS = 12
ERROR = ErrorData("CommandRejected", "CommandRejected", "no")


@pytest.fixture
async def admin(postgres: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres.url)
    yield connection
    await connection.close()


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    with tempfile.TemporaryDirectory(prefix="evento-postgres-") as folder:
        Path(folder).chmod(0o755)
        server = start_postgres(Path(folder))
        try:
            yield server
        finally:
            server.stop()


async def terminate(admin: asyncpg.Connection) -> int:
    """End the sessions of all stores, whatever they do, and return how many there were."""
    return len(
        await admin.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'evento-store' AND pid <> pg_backend_pid()"
        )
    )


class Callers:
    """Each appends to an aggregate of its own, and knows what was acknowledged."""

    def __init__(self, store: PostgresStateStore) -> None:
        self._store = store
        self.acknowledged: dict[str, int] = {}
        self.stopping = False

    async def run(self) -> None:
        await asyncio.gather(*(self._call(f"ORD_{number}") for number in range(CALLERS)))

    async def _call(self, aggregate_id: str) -> None:
        version = 0
        while not self.stopping:
            append = Append(event(aggregate_id), version, aggregate_id, version)
            outcome = await self._store.append(append)
            assert isinstance(outcome, Appended), outcome
            assert outcome.record.event_id == append.event.event_id
            assert (outcome.record.version, outcome.boundary_version) == (version + 1, version + 1)
            version += 1
            self.acknowledged[append.event.command_id] = outcome.record.position


async def check(store: PostgresStateStore, callers: Callers) -> None:
    assert (await store.verify()).problems == ()
    stored = {record.command_id: record.position for record in (await store.fetch(0, limit=1_000_000)).events}
    assert stored == callers.acknowledged


async def test_sessions_that_are_ended_at_random_moments(
    postgres: PostgresServer, postgres_schema: str, admin: asyncpg.Connection
) -> None:
    """No caller even hears of it: what was sent is looked up and, if it is not there, sent again."""
    chance = random.Random(4)
    async with PostgresStateStore(postgres.url, schema=postgres_schema) as store:
        callers = Callers(store)
        running = asyncio.create_task(callers.run())
        for kills in range(1, 21):
            await terminate(admin)
            while len(callers.acknowledged) < kills * CALLERS:
                await asyncio.sleep(chance.random() * 0.02)
        callers.stopping = True
        await running
        await check(store, callers)


async def test_reads_go_on_after_their_sessions_were_ended(
    postgres: PostgresServer, postgres_schema: str, admin: asyncpg.Connection
) -> None:
    async with PostgresStateStore(postgres.url, schema=postgres_schema) as store:
        outcome = await store.append(Append(event("ORD_1")))
        assert isinstance(outcome, Appended)
        waiting = asyncio.create_task(store.wait(1, timeout=30))
        for _ in range(5):
            assert await terminate(admin) >= 1
            stories = await asyncio.gather(*(store.story("ORD_1") for _ in range(10)))
            assert {story.version for story in stories} == {1}
            assert await store.reject("c1", ERROR) in (None, Refused(ERROR))
        await store.append(Append(event("ORD_1")))
        assert await waiting == 2


async def test_a_server_that_crashes_and_comes_back(own_server: PostgresServer) -> None:
    async with PostgresStateStore(own_server.url) as store:
        callers = Callers(store)
        running = asyncio.create_task(callers.run())
        wanted = 0

        def goes_on() -> bool:
            return len(callers.acknowledged) >= wanted

        for how in (signal.SIGQUIT, signal.SIGINT, signal.SIGQUIT):
            wanted = len(callers.acknowledged) + 50
            await eventually(goes_on)
            await asyncio.to_thread(own_server.stop, how)
            await asyncio.to_thread(own_server.start)
        callers.stopping = True
        await running
        await check(store, callers)


async def test_a_server_that_stays_away(own_server: PostgresServer) -> None:
    """After a bounded time everything fails; what may have been stored says so, and all of it comes back."""
    async with PostgresStateStore(own_server.url, timeout=3) as store:
        await store.append(Append(event("ORD_1")))
        await asyncio.to_thread(own_server.stop, signal.SIGQUIT)
        for attempt in (store.append(Append(event("ORD_1"))), store.head(), store.lock("L", owner="a", ttl=1)):
            with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{own_server.port}"):
                await attempt
        with pytest.raises(StoreUnavailable) as caught:  # there was no connection to send it on
            await store.append(Append(event("ORD_1")))
        assert caught.value.definite
        await asyncio.to_thread(own_server.start)
        assert isinstance(await store.append(Append(event("ORD_1"))), Appended)
        assert await store.head() >= 2


async def test_what_is_queued_behind_an_outage_fails_with_it(own_server: PostgresServer) -> None:
    """Else each batch would wait for the server anew, and the last of them for a multiple of the timeout."""
    async with PostgresStateStore(own_server.url, timeout=0.5) as store:
        await asyncio.to_thread(own_server.stop, signal.SIGQUIT)
        futures = [store.append(Append(event("ORD_1"))) for _ in range(3000)]
        await asyncio.wait(futures[:1])
        await turns()
        assert all(future.done() for future in futures)
        errors = [future.exception() for future in futures]
        assert {type(error) for error in errors} == {StoreUnavailable}
        last = errors[-1]
        assert isinstance(last, StoreUnavailable)
        assert last.definite
        assert "nothing was stored" in str(last)
        await asyncio.to_thread(own_server.start)
        assert isinstance(await store.append(Append(event("ORD_1"), 0)), Appended)


async def test_a_session_that_is_always_lost_is_tried_again_after_pauses(
    postgres: PostgresServer, postgres_schema: str, admin: asyncpg.Connection
) -> None:
    """For two seconds, after 20, 40, 80 ... up to 500 milliseconds: nine times at most, however fast the server is."""
    async with PostgresStateStore(postgres.url, schema=postgres_schema, timeout=2) as store:
        await admin.execute(f"""
            CREATE SEQUENCE {postgres_schema}.tries;
            CREATE FUNCTION {postgres_schema}.end_session() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                PERFORM nextval('{postgres_schema}.tries'), pg_terminate_backend(pg_backend_pid()); RETURN new; END $$;
            CREATE TRIGGER ending BEFORE INSERT ON {postgres_schema}.events
                EXECUTE FUNCTION {postgres_schema}.end_session();
            CREATE TRIGGER ending BEFORE INSERT ON {postgres_schema}.locks
                EXECUTE FUNCTION {postgres_schema}.end_session();
        """)
        for attempt in (store.append(Append(event("ORD_1"))), store.lock("L", owner="a", ttl=1)):
            with pytest.raises(StoreUnavailable):
                await attempt
            tries = await admin.fetchval(f"SELECT last_value FROM {postgres_schema}.tries")
            assert 1 < tries <= 9
            await admin.execute(f"ALTER SEQUENCE {postgres_schema}.tries RESTART")


async def test_a_transaction_that_holds_the_lock_for_too_long(postgres: PostgresServer, postgres_schema: str) -> None:
    async with PostgresStateStore(postgres.url, schema=postgres_schema, timeout=3) as store:
        blocker = await asyncpg.connect(postgres.url)
        async with blocker.transaction():
            await blocker.execute("SELECT pg_advisory_xact_lock($1)", store._known_identity().lock_key)
            with pytest.raises(StoreUnavailable, match=r"lock|cancelled") as caught:
                await store.append(Append(event("ORD_1")))
            assert caught.value.definite
            assert await store.head() == 0  # reads do not wait
        await blocker.close()
        assert isinstance(await store.append(Append(event("ORD_1"))), Appended)


async def test_cancelled_reads_hold_up_no_other(postgres: PostgresServer, postgres_schema: str) -> None:
    async with PostgresStateStore(postgres.url, schema=postgres_schema, connections=1) as store:
        await asyncio.gather(*(store.append(Append(event("ORD_1"))) for _ in range(500)))
        for turns in range(40):
            reading = [asyncio.ensure_future(store.fetch(0)) for _ in range(3)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in reading[:2]:
                task.cancel()
            outcomes = await asyncio.gather(*reading, return_exceptions=True)
            assert not isinstance(outcomes[2], BaseException)
        assert (await store.story("ORD_1")).version == 500


async def test_a_resend_is_told_of_its_event_after_an_outage(
    postgres: PostgresServer, postgres_schema: str, admin: asyncpg.Connection
) -> None:
    async with PostgresStateStore(postgres.url, schema=postgres_schema) as store:
        append = Append(event("ORD_1"), 0)
        first = await store.append(append)
        await terminate(admin)
        assert isinstance(first, Appended)
        resent = Append(msgspec.structs.replace(append.event, event_id="another"), 0)
        assert await store.append(resent) == AlreadyStored(first.record, first.record.name, "ORD_1")
