"""Events reach the handlers: all that match, in order, with what the handlers ask for."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from streams import (
    ClockTickedEvent,
    FaultyStateStore,
    Seen,
    ThingAddedEvent,
    ThingProjector,
    ThingRenamedEvent,
    add,
    add_many,
    group_of,
    things,
)
from waiting import eventually

from evento import EventMessage, Metadata, Projector, ProjectorStatus, QueryGateway, event_handler
from evento.components import Interceptor
from evento.consumers import ConsumerId, SqlConsumerStateStore
from evento.errors import DefinitionError
from evento.gateway import InProcessBus, current_handling
from evento.gateway.requests import RequestSender
from evento.state_store import StateStore


@pytest.mark.parametrize("fetch_size", [1, 7, 1000])
async def test_all_events_are_handled_once_in_order(
    events: StateStore, state: SqlConsumerStateStore, fetch_size: int
) -> None:
    await add(events, *things(20))
    seen = Seen()
    async with group_of(events, state, ThingProjector(seen), fetch_size=fetch_size) as group:
        await group.caught_up(10)
        await add(events, *things(20))
        await group.caught_up(10)
    assert seen.positions == list(range(1, 41))
    assert [message.payload.number for message in seen.messages] == [*range(20), *range(20)]


async def test_only_handled_events_are_delivered(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, ThingAddedEvent("T"), ThingRenamedEvent("T"), ClockTickedEvent(), ThingRenamedEvent("T"))
    seen = Seen()
    async with group_of(events, state, ThingProjector(seen)) as group:
        await group.caught_up(10)
        assert seen.positions == [1, 3]
        assert [status.position for status in group.statuses()] == [4]


@pytest.mark.parametrize(
    ("contexts", "expected"),
    [
        (["*"], [1, 2, 3, 4]),
        (["eu"], [2]),
        (["e*"], [2, 3]),
        (["*s*"], [3, 4]),
        (["eu", "us"], [2, 4]),
        (["eu", "eu"], [2]),
        (["nowhere"], []),
    ],
)
async def test_contexts_select_events(
    events: StateStore, state: SqlConsumerStateStore, contexts: list[str], expected: list[int]
) -> None:
    await add(events, *(ThingAddedEvent("T", context=context) for context in ("default", "eu", "eu_west", "us")))
    seen = Seen()
    async with group_of(events, state, ThingProjector(seen), contexts=contexts) as group:
        await group.caught_up(10)
        assert {status.id for status in group.statuses()} == {
            ConsumerId("test_bundle", "ThingProjector", 1, context) for context in contexts
        }
    assert sorted(seen.positions) == expected


async def test_each_context_has_its_own_checkpoint(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, ThingAddedEvent("T", context="eu"), ThingAddedEvent("T", context="us"))
    seen = Seen()
    async with group_of(events, state, ThingProjector(seen), contexts=["eu"]) as group:
        await group.caught_up(10)
    async with group_of(events, state, ThingProjector(seen), contexts=["eu", "us"]) as group:
        await group.caught_up(10)
    assert seen.positions == [1, 2]


class AskingProjector(Projector, version=3):
    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    @event_handler
    def on_added(
        self,
        event: ThingAddedEvent,
        status: ProjectorStatus,
        metadata: Metadata,
        queries: QueryGateway,
        timestamp: datetime,
        message: EventMessage[ThingAddedEvent],
    ) -> None:
        handling = current_handling()
        assert handling is not None
        self.asked.append((event, status, metadata, queries, timestamp, message, handling))


async def test_handlers_are_given_what_they_ask_for(events: StateStore, state: SqlConsumerStateStore) -> None:
    projector, queries = AskingProjector(), QueryGateway(RequestSender(InProcessBus()))
    await add(events, ThingAddedEvent("T", 7), metadata=b'{"user":"ann"}')
    async with group_of(events, state, projector, queries=queries) as group:
        await group.caught_up(10)
    record = await events.event(1)
    assert record is not None
    ((event, status, metadata, gateway, timestamp, message, handling),) = projector.asked
    assert event == ThingAddedEvent("T", 7)
    assert status == ProjectorStatus(head_reached=False, position=1, head=1)
    assert metadata == {"user": "ann"}
    assert gateway is queries
    assert timestamp == message.timestamp
    assert timestamp.utcoffset() == timedelta(0)
    assert (message.position, message.version, message.aggregate_id, message.context) == (1, 1, "T", "default")
    assert message.message_id == record.event_id
    assert handling.message is message
    assert handling.metadata == {"user": "ann"}
    assert (handling.may_send, handling.may_query) == (False, True)


async def test_ids_of_what_a_handler_sends_depend_on_event_and_consumer_only(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    await add(events, *things(2))
    first, again, other = AskingProjector(), AskingProjector(), AskingProjector()
    for projector, bundle in ((first, "a"), (again, "a"), (other, "b")):
        async with (
            SqlConsumerStateStore("sqlite://") as fresh,
            group_of(events, fresh, projector, bundle_id=bundle) as group,
        ):
            await group.caught_up(10)
    ids = [[asked[-1].next_id("Command", "X") for asked in projector.asked] for projector in (first, again, other)]
    assert ids[0] == ids[1]
    assert len({*ids[0], *ids[2]}) == 4


async def test_the_status_tells_history_from_news(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *things(5))
    projector = AskingProjector()
    async with group_of(events, state, projector, fetch_size=2) as group:
        await group.caught_up(10)
        await add(events, *things(2))
        await group.caught_up(10)
    statuses = [asked[1] for asked in projector.asked]
    assert [status.head_reached for status in statuses] == [False] * 5 + [True] * 2
    assert [status.position for status in statuses] == list(range(1, 8))
    assert all(status.head >= status.position for status in statuses)


class ThreadProjector(Projector, version=1):
    def __init__(self) -> None:
        self.threads: list[str] = []

    @event_handler(executor="slow")
    def on_added(self, event: ThingAddedEvent) -> None:
        self.threads.append(threading.current_thread().name)


async def test_an_executor_moves_a_handler_to_its_threads(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *things(3))
    projector = ThreadProjector()
    with ThreadPoolExecutor(thread_name_prefix="slow-pool") as pool:
        async with group_of(events, state, projector, executors={"slow": pool}) as group:
            await group.caught_up(10)
    assert len(projector.threads) == 3
    assert all(name.startswith("slow-pool") for name in projector.threads)


async def test_an_unknown_executor_is_refused(events: StateStore, state: SqlConsumerStateStore) -> None:
    with pytest.raises(DefinitionError, match=r"ThreadProjector.*'slow'.*it has none"):
        group_of(events, state, ThreadProjector())


async def test_interceptors_run_around_handlers(events: StateStore, state: SqlConsumerStateStore) -> None:
    calls: list[str] = []

    class Around(Interceptor):
        async def before(self, call: Any) -> None:
            calls.append(f"before {call.message.position}")

        async def after(self, call: Any, result: Any) -> Any:
            calls.append(f"after {call.message.position}")
            return result

    await add(events, *things(2))
    async with group_of(events, state, ThingProjector(Seen()), interceptors=[Around()]) as group:
        await group.caught_up(10)
    assert calls == ["before 1", "after 1", "before 2", "after 2"]


class SyncProjector(Projector, version=1):
    def __init__(self) -> None:
        self.done = 0

    @event_handler
    def on_added(self, event: ThingAddedEvent) -> None:
        self.done += 1


async def test_a_long_replay_lets_others_have_their_turn(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add_many(events, things(20_000))
    projector = SyncProjector()
    turns: set[int] = set()
    async with group_of(events, state, projector, fetch_size=20_000) as group:
        while projector.done < 20_000:
            turns.add(projector.done)
            await asyncio.sleep(0)
        await group.caught_up(30)
    assert len(turns - {0}) >= 3


async def test_an_idle_consumer_asks_for_nothing(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *things(3))
    store = FaultyStateStore(events)
    async with group_of(
        store, state, ThingProjector(Seen()), fetch_size=1, fetch_delay=timedelta(milliseconds=5)
    ) as group:
        await group.caught_up(10)
        await eventually(lambda: group.statuses()[0].head_reached)
        fetches, waits = store.fetches, store.waits
        await eventually(lambda: store.waits >= waits + 5)
        assert store.fetches == fetches
        assert store.waits < waits + 50


async def test_an_idle_consumer_sleeps(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *things(3))
    loop: Any = asyncio.get_running_loop()
    never = timedelta(hours=1)  # what looks once a second, or renews a lease, could want to run just then

    async def nothing_else_runs() -> bool:
        """A hundred times in a row; before, threads may still have something to tell."""
        for _ in range(100):
            await asyncio.sleep(0)
            if loop._ready:
                return False
        return True

    async with group_of(events, state, ThingProjector(Seen()), fetch_delay=never, lease_ttl=never) as group:
        await group.caught_up(10)
        await eventually(nothing_else_runs)


async def test_one_wait_on_the_store_serves_all_consumers(events: StateStore, state: SqlConsumerStateStore) -> None:
    store = FaultyStateStore(events)
    seen = Seen()
    contexts = [f"c{number}*" for number in range(10)]
    never = timedelta(hours=1)  # no second look at the head, however long it takes
    async with group_of(store, state, ThingProjector(seen), contexts=contexts, fetch_delay=never) as group:
        await eventually(lambda: all(status.head_reached for status in group.statuses()))
        assert store.waits == 1
        await add(events, ThingAddedEvent("T", context="c7"))
        await seen.wait(1)
