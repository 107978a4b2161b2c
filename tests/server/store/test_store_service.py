"""What the store service does with calls that are wrong, late, or whose answers are too large."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from math import nan
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats_server import nats_server
from waiting import eventually

from evento.errors import (
    ErrorData,
    EventoError,
    Overloaded,
    PayloadError,
    StoreMismatch,
    StoreUnavailable,
    error_from_data,
)
from evento.gateway.nats import NatsConnection
from evento.gateway.nats.calls import encode
from evento.server.store import StoreService
from evento.state_store import Append, Appended, AppendOutcome, EventFilter, Found, Page, Refused, Snapshot, Story
from evento.state_store.remote import RemoteStateStore, wire
from evento.state_store.sqlite import SqliteStateStore
from evento.testing.conformance.state_store.support import all_found, append, filled, new_event, stored, whole


@asynccontextmanager
async def serving(
    folder: Path, store: SqliteStateStore, *, max_payload: int = 1_048_576, **bounds: int
) -> AsyncIterator[tuple[StoreService, NatsConnection]]:
    """Serve a store; give the service and the connection of a bundle."""
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(nats_server(folder, config=f"max_payload: {max_payload}\n"))
        await stack.enter_async_context(store)
        server, bundle = [
            await stack.enter_async_context(NatsConnection([nats.url], cluster="test", user=user, instance=f"{user}-1"))
            for user in ("evento-server", "shop")
        ]
        service = await stack.enter_async_context(StoreService(server, store, **bounds))
        yield service, bundle


@pytest.fixture
def store(tmp_path: Path) -> SqliteStateStore:
    return SqliteStateStore(tmp_path / "events.db", keep_leases=True)


async def ask(connection: NatsConnection, name: str, data: bytes, *, seconds: float = 5.0) -> Any:
    deadline = asyncio.get_running_loop().time() + seconds
    answer = wire.OPERATIONS[name].decode_answer(
        await connection.request(connection.subjects.store(name), data, deadline)
    )
    if answer.error is not None:
        raise error_from_data(answer.error)
    return answer.value


async def test_a_call_without_a_deadline_that_makes_sense_is_refused(tmp_path: Path, store: SqliteStateStore) -> None:
    """A timer at NaN would break the event loop of the server."""
    async with serving(tmp_path, store) as (_, bundle):
        for name in ("head", "append"):
            arguments: list[Any] = [[]] if name == "append" else []
            call = msgspec.msgpack.encode([wire.FORMAT, nan, None, *arguments])
            with pytest.raises(PayloadError, match="cannot be read"):
                await ask(bundle, name, call)
        assert await ask(bundle, "head", encode(wire.Call(wire.FORMAT, 5.0, None))) == 0


@pytest.mark.parametrize("limit", [-1, 2**62, 2**63])
async def test_nobody_can_ask_for_the_whole_store_at_once(tmp_path: Path, store: SqliteStateStore, limit: int) -> None:
    async with serving(tmp_path, store) as (_, bundle):
        await filled(store, 1500)
        call = wire.SearchCall(wire.FORMAT, 5.0, None, EventFilter(), 0, None, limit, False, 2**62)
        found = await ask(bundle, "search", encode(call))
        assert len(found.events) <= 1000
        page = await ask(bundle, "fetch", encode(wire.FetchCall(wire.FORMAT, 5.0, None, 0, ("*",), None, limit, 2**62)))
        assert len(page.events) <= 1500


async def test_a_find_of_more_than_one_answer_comes_in_parts(tmp_path: Path, store: SqliteStateStore) -> None:
    async with serving(tmp_path, store) as (_, bundle), RemoteStateStore(bundle) as remote:
        records = await filled(store, 2500)
        assert await all_found(remote, EventFilter()) == records
        assert await all_found(remote, EventFilter(), descending=True) == records[::-1]


class Failing(SqliteStateStore):
    """A store with a fault in what takes appends."""

    def append(self, append: Append) -> asyncio.Future[AppendOutcome]:
        if append.event.name == "Faulty":
            raise ValueError("a fault")
        return super().append(append)


async def test_a_fault_fails_one_append_and_leaves_nothing_waiting(tmp_path: Path) -> None:
    async with serving(tmp_path, Failing(tmp_path / "events.db")) as (_, bundle), RemoteStateStore(bundle) as remote:
        good, bad = remote.append(append()), remote.append(Append(new_event(name="Faulty")))
        await good
        with pytest.raises(EventoError, match="a fault"):
            await bad
    # leaving waits for all that was under way: it would not end


async def test_outcomes_that_are_too_large_together_arrive_all_the_same(
    tmp_path: Path, store: SqliteStateStore
) -> None:
    async with serving(tmp_path, store, max_payload=65_536) as (_, bundle), RemoteStateStore(bundle) as remote:
        error = ErrorData("CommandRejected", "ListIsFull", "no" * 5_000, {"why": "x" * 5_000})
        ids = [f"c{number}" for number in range(20)]
        for command_id in ids:
            await remote.reject(command_id, error)
        outcomes = await asyncio.wait_for(
            asyncio.gather(*(remote.append(append(command_id=command_id)) for command_id in ids)), 10
        )
        for outcome in outcomes:
            assert isinstance(outcome, Refused)
            assert outcome.error.type == "ListIsFull"
        assert (await remote.append(append(command_id="c0"))).error == error  # type: ignore[union-attr]


async def test_a_stored_event_that_does_not_fit_into_the_answer_is_not_denied(
    tmp_path: Path, store: SqliteStateStore
) -> None:
    async with serving(tmp_path, store, max_payload=65_536) as (_, bundle), RemoteStateStore(bundle) as remote:
        large = b'{"text":"' + b"x" * 40_000 + b'"}'
        for command_id in ("a", "b"):
            await stored(remote, Append(new_event(command_id=command_id, payload=large)))
        again = [remote.append(append(command_id=command_id)) for command_id in ("a", "b")]
        for outcome in await asyncio.wait_for(asyncio.gather(*again, return_exceptions=True), 10):
            assert not isinstance(outcome, StoreUnavailable) or not outcome.definite


async def test_a_story_whose_snapshot_fills_a_message_comes_in_parts(tmp_path: Path, store: SqliteStateStore) -> None:
    async with serving(tmp_path, store, max_payload=65_536) as (_, bundle), RemoteStateStore(bundle) as remote:
        large = b'{"text":"' + b"x" * 40_000 + b'"}'
        records = []
        for number in range(5):
            records += await stored(remote, Append(new_event(payload=large if number == 3 else None)))
        state = b'{"text":"' + b"y" * 60_000 + b'"}'
        assert await remote.snapshot(Snapshot("ORD_1", 3, "f", state))
        story = await remote.story("ORD_1", fingerprint="f")
        assert (story.told, story.is_cut) == (3, True)
        story = await whole(remote, fingerprint="f")
        assert story.snapshot is not None
        assert story.snapshot.state == state
        assert list(story.events) == records[3:]
        assert story.version == 5


class Counting(SqliteStateStore):
    """A store that counts the events that it reads."""

    events = 0

    async def story(self, *arguments: Any, **options: Any) -> Story:
        story = await super().story(*arguments, **options)
        self.events += len(story.events)
        return story

    async def search(self, *arguments: Any, **options: Any) -> Found:
        found = await super().search(*arguments, **options)
        self.events += len(found.events)
        return found

    async def fetch(self, *arguments: Any, **options: Any) -> Page:
        page = await super().fetch(*arguments, **options)
        self.events += len(page.events)
        return page


async def test_no_event_is_read_twice_however_many_parts_it_takes(tmp_path: Path) -> None:
    store = Counting(tmp_path / "events.db")
    async with serving(tmp_path, store, max_payload=65_536) as (service, bundle), RemoteStateStore(bundle) as remote:
        await filled(store, 500)
        assert len((await whole(remote)).events) == store.events == 500
        assert len(await all_found(remote, EventFilter())) == store.events - 500 == 500
        after = 0
        while after < 500:
            after = (await remote.fetch(after)).scanned_to
        assert store.events == 1500
        assert service.counters.fetched == 500


class Gated(SqliteStateStore):
    """A store whose reads wait at a gate."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = asyncio.Event()
        self.running: list[str] = []

    async def story(self, *arguments: Any, **options: Any) -> Story:
        await self._pass("story")
        return await super().story(*arguments, **options)

    async def search(self, *arguments: Any, **options: Any) -> Found:
        await self._pass("search")
        return await super().search(*arguments, **options)

    async def fetch(self, *arguments: Any, **options: Any) -> Page:
        await self._pass("fetch")
        return await super().fetch(*arguments, **options)

    async def _pass(self, name: str) -> None:
        self.running.append(name)
        await self.gate.wait()


async def test_few_reads_of_many_events_run_at_a_time(tmp_path: Path) -> None:
    store = Gated(tmp_path / "events.db")
    async with serving(tmp_path, store, max_fetches=2) as (_, bundle), RemoteStateStore(bundle) as remote:
        reads: list[Awaitable[Any]] = [remote.story("ORD_1"), remote.search(EventFilter()), remote.fetch(0)]
        reading = asyncio.gather(*reads, remote.story("ORD_2"), remote.search(EventFilter()), remote.fetch(0))
        try:
            await eventually(lambda: len(store.running) >= 2)
            await remote.lookup("c1")  # asked after them, and answered
            assert store.running == ["story", "search"]
        finally:
            store.gate.set()
        await reading
        assert len(store.running) == 6


class Slow(SqliteStateStore):
    """A store that keeps its readers waiting."""

    asked: asyncio.Event

    async def story(self, *arguments: Any, **options: Any) -> Any:
        self.asked.set()
        await asyncio.Event().wait()

    async def event(self, position: int) -> Any:
        raise TimeoutError("the disk sleeps")


@pytest.mark.parametrize("turns", [1, 10, 1000])
async def test_leaving_that_is_cancelled_leaves_nothing_behind(tmp_path: Path, turns: int) -> None:
    store = Slow(tmp_path / "events.db")
    store.asked = asyncio.Event()
    async with serving(tmp_path, store) as (service, bundle):
        call = encode(wire.StoryCall(wire.FORMAT, 60.0, None, "ORD_1", None, None, 0, 1000))
        asking = asyncio.ensure_future(ask(bundle, "story", call))
        await store.asked.wait()
        leaving = asyncio.ensure_future(service.__aexit__())
        for _ in range(turns):
            await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert not service._tasks
        asking.cancel()


async def test_a_timeout_of_the_store_itself_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path, Slow(tmp_path / "events.db")) as (_, bundle):
        with pytest.raises(EventoError, match="the disk sleeps"):
            await ask(bundle, "event", encode(wire.EventCall(wire.FORMAT, 5.0, None, 1)))


async def test_a_call_that_was_meant_for_another_store_is_refused(tmp_path: Path, store: SqliteStateStore) -> None:
    async with serving(tmp_path, store) as (_, bundle):
        for meant in (("another", store.epoch), (store.store_id, store.epoch + 1)):
            with pytest.raises(StoreMismatch, match="must share one PostgreSQL"):
                await ask(bundle, "append", encode(wire.AppendCall(wire.FORMAT, 5.0, meant, [append()])))
            with pytest.raises(StoreMismatch):
                await ask(
                    bundle, "story", encode(wire.StoryCall(wire.FORMAT, 5.0, meant, "ORD_1", None, None, 0, 1000))
                )
        assert await store.head() == 0


async def test_one_notice_tells_the_head_of_all_that_was_committed_in_a_turn(
    tmp_path: Path, store: SqliteStateStore
) -> None:
    async with serving(tmp_path, store) as (_, bundle), RemoteStateStore(bundle) as remote:
        notices: list[Any] = []
        await bundle.subscribe(bundle.subjects.head, lambda notice: notices.append(msgspec.msgpack.decode(notice.data)))
        await filled(remote, 500)
        await eventually(lambda: notices[-1:] == [[wire.FORMAT, store.store_id, 500]])
        heads = [head for _, _, head in notices]
        assert heads == sorted(set(heads))
        assert len(heads) < 500


@pytest.mark.parametrize("remaining", [0.0, -100.0])
async def test_what_comes_after_its_deadline_is_not_started(
    tmp_path: Path, store: SqliteStateStore, remaining: float
) -> None:
    async with serving(tmp_path, store) as (service, bundle):
        await filled(store, 1)
        begin = wire.FORMAT, remaining, None
        calls: dict[str, wire.Call] = {
            "append": wire.AppendCall(*begin, [append(), append("ORD_2")]),
            "reject": wire.RejectCall(*begin, "c1", ErrorData("CommandRejected", "Full", "full")),
            "snapshot": wire.SnapshotCall(*begin, Snapshot("ORD_1", 1, "f", b"{}")),
            "lock": wire.LockCall(*begin, "L", "me", 60.0),
            "story": wire.StoryCall(*begin, "ORD_1", None, None, 0, 1000),
        }
        for name, call in calls.items():
            with pytest.raises(StoreUnavailable, match=rf"store\.{name} was not started: .*deadline") as caught:
                await ask(bundle, name, encode(call))
            assert caught.value.definite
        assert service.counters.expired == len(calls)
        assert service.counters.in_flight == 0
        info = await store.info()
        assert (info.head, info.snapshots, await store.lookup("c1")) == (1, 0, None)
        assert await store.lock("L", owner="another", ttl=60.0) is not None
        outcomes = await ask(bundle, "append", encode(wire.AppendCall(wire.FORMAT, 5.0, None, [append()])))
        assert isinstance(outcomes[0], wire.Stored)


class Held(SqliteStateStore):
    """A store that keeps its snapshots until it is let go."""

    let_go: asyncio.Event

    async def snapshot(self, snapshot: Snapshot) -> bool:
        await self.let_go.wait()
        return await super().snapshot(snapshot)


async def test_the_bytes_of_calls_under_way_are_bounded(tmp_path: Path) -> None:
    store = Held(tmp_path / "events.db", keep_leases=True)
    store.let_go = asyncio.Event()
    async with serving(tmp_path, store, max_bytes=5000) as (service, bundle):
        [record] = await filled(store, 1)
        assert record.version == 1
        snapshots = [
            encode(wire.SnapshotCall(wire.FORMAT, 20.0, None, Snapshot("ORD_1", 1, f"f{number}", b"x" * 4000)))
            for number in range(20)
        ]
        asking = [asyncio.create_task(ask(bundle, "snapshot", snapshot, seconds=20.0)) for snapshot in snapshots]
        await eventually(lambda: service.counters.refused == len(snapshots) - 1)
        store.let_go.set()
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        refused = [one for one in outcomes if isinstance(one, Overloaded)]
        assert refused
        assert [one for one in outcomes if one is True]
        assert service.counters.refused == len(refused)
        assert await ask(bundle, "head", encode(wire.Call(wire.FORMAT, 5.0, None))) == 1


async def test_an_event_over_the_servers_limit_is_refused_alone(tmp_path: Path, store: SqliteStateStore) -> None:
    async with (
        serving(tmp_path, store, payload_limit=100) as (_, bundle),
        RemoteStateStore(bundle) as remote,
    ):
        large = Append(new_event("ORD_1", payload=b'{"text":"%s"}' % (b"x" * 100)))
        outcomes = await asyncio.gather(remote.append(append()), remote.append(large), return_exceptions=True)
        assert isinstance(outcomes[0], Appended)
        assert isinstance(outcomes[1], PayloadError)
        assert outcomes[1].definite
        assert "payload_limit" in str(outcomes[1])
        assert await remote.head() == 1
