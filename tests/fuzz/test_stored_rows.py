"""Whatever the rows of a store hold, those who read them say so with PayloadError, and go on with the next."""

from __future__ import annotations

import asyncio
import io
import os
import sqlite3
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import closing, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import hostile_json
from shop import ItemAddCommand, OrderAggregate, OrderPlaceCommand
from sqlalchemy import text
from streams import ThingAddedEvent, add, group_of

from evento import (
    AggregateDeleted,
    CommandRejected,
    EventMessage,
    EventoBundle,
    Observer,
    PayloadError,
    Projector,
    Saga,
    SagaState,
    event_handler,
    saga_event_handler,
)
from evento.cli import main
from evento.consumers import ConsumerId, SqlConsumerStateStore
from evento.errors import ErrorData
from evento.state_store import Refused
from evento.state_store.sqlite import SqliteStateStore

EVENT = b'{"thing_id":"T","number":7,"context":"default"}'
SAGA = b'{"associations":{"thing_id":"T"},"ended":false,"count":3}'
STATE = b'{"deleted":false,"customer":"ann","items":{"tea":1},"total":1}'
ERROR = b'{"code":"CommandRejected","type":"CommandRejected","message":"no","data":{"a":1}}'

few = settings(max_examples=int(os.environ.get("EVENTO_FUZZ_EXAMPLES", "150")) // 40, deadline=None)
rows_of = st.lists(
    st.tuples(hostile_json(EVENT), hostile_json(b'{"user":"ann"}') | st.just(b"{}")), min_size=10, max_size=20
)


class ReadingProjector(Projector, version=1):
    def __init__(self, seen: set[int]) -> None:
        self._seen = seen

    @event_handler(retry=0)
    def on_added(self, event: ThingAddedEvent, message: EventMessage[Any]) -> None:
        dict(message.metadata)
        self._seen.add(message.position)


class ReadingObserver(Observer, version=1):
    def __init__(self, seen: set[int]) -> None:
        self._seen = seen

    @event_handler(retry=0)
    def on_added(self, event: ThingAddedEvent, message: EventMessage[Any]) -> None:
        dict(message.metadata)
        self._seen.add(message.position)


class ReadingState(SagaState):
    count: int = 0


class ReadingSaga(Saga[ReadingState], version=1):
    def __init__(self, seen: set[int]) -> None:
        self._seen = seen

    @saga_event_handler(init=True, association_property="number", retry=0)
    def on_added(self, event: ThingAddedEvent, message: EventMessage[Any], state: ReadingState | None) -> ReadingState:
        dict(message.metadata)
        self._seen.add(message.position)
        state = state or ReadingState()
        state.set_association("number", event.number)
        state.count += 1
        return state


def in_a_folder(run: Callable[[Path], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine with a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


def _is_text(data: bytes) -> bool:
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False


def damage(path: Path, statement: str, *parameters: object) -> None:
    """Change rows behind everybody's back."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        assert database.execute(statement, parameters).rowcount >= 1


async def things(path: Path, rows: list[tuple[bytes, bytes]]) -> None:
    """Make a store whose events have these payloads and metadata."""
    async with SqliteStateStore(path) as store:
        for number in range(len(rows)):
            await add(store, ThingAddedEvent(f"T_{number}", number))
    for number, (payload, metadata) in enumerate(rows):
        damage(path, "UPDATE events SET payload = ?, metadata = ? WHERE position = ?", payload, metadata, number + 1)


@few
@given(rows_of)
def test_consumers_set_unreadable_events_aside_and_go_on(rows: list[tuple[bytes, bytes]]) -> None:
    async def run(directory: Path) -> None:
        path = directory / "events.db"
        seen: dict[str, set[int]] = {"ReadingProjector": set(), "ReadingObserver": set(), "ReadingSaga": set()}
        readers = [cls(seen[cls.__name__]) for cls in (ReadingProjector, ReadingObserver, ReadingSaga)]
        async with SqlConsumerStateStore("sqlite+aiosqlite://") as state:
            async with SqliteStateStore(path) as store, group_of(store, state, *readers) as group:
                await group.ready()
            await things(path, rows)
            async with SqliteStateStore(path) as store, group_of(store, state, *readers) as group:
                await group.ready()
                await group.caught_up(30)
            for name, positions in seen.items():
                dead = await state.dead_events(ConsumerId("test_bundle", name, 1, "*"), limit=1000)
                assert {event.error_type for event in dead if not event.waiting} <= {"PayloadError"}
                handled = {*positions, *(event.position for event in dead)}
                assert handled == set(range(1, len(rows) + 1))

    in_a_folder(run)


@few
@given(st.lists(hostile_json(STATE), min_size=10, max_size=20), st.lists(hostile_json(EVENT), min_size=5, max_size=10))
def test_aggregates_of_unreadable_snapshots_and_events_are_refused(states: list[bytes], payloads: list[bytes]) -> None:
    class Photographed(OrderAggregate, snapshot_frequency=0):
        """With a snapshot after every event."""

    async def run(directory: Path) -> None:
        path = directory / "shop.db"
        bundle = EventoBundle("shop", components=[Photographed], server=f"embedded:{path}", state_cache_size=0)
        async with bundle:
            await bundle.commands.send(OrderPlaceCommand("ORD", "ann"))
            await bundle.commands.send(ItemAddCommand("ORD", "tea"))
            for state in states:
                damage(path, "UPDATE snapshots SET state = ?", state)
                await attempt(bundle)
            damage(path, "DELETE FROM snapshots")
            for payload in payloads:
                damage(path, "UPDATE events SET payload = ? WHERE version = 1", payload)
                await attempt(bundle)
                with closing(sqlite3.connect(path, isolation_level=None)) as database:
                    database.execute("DELETE FROM snapshots")
        async with SqliteStateStore(path) as store:
            await store.verify()

    async def attempt(bundle: EventoBundle) -> None:
        with suppress(PayloadError, CommandRejected, AggregateDeleted):
            await bundle.commands.send(ItemAddCommand("ORD", "tea", 0))

    in_a_folder(run)


@few
@given(st.lists(hostile_json(SAGA).filter(_is_text), min_size=5, max_size=10))
def test_unreadable_saga_states_make_dead_events(states: list[bytes]) -> None:
    async def run() -> None:
        seen: set[int] = set()
        saga = ConsumerId("test_bundle", "ReadingSaga", 1, "*")
        async with SqliteStateStore(None) as store, SqlConsumerStateStore("sqlite+aiosqlite://") as state:
            async with group_of(store, state, ReadingSaga(seen)) as group:
                await group.ready()
                await add(store, *(ThingAddedEvent(f"T_{number}", number) for number in range(len(states))))
                await group.caught_up(30)
            async with state.begin() as connection:
                ids = list(await connection.scalars(text("SELECT saga_id FROM evento_consumer_saga ORDER BY saga_id")))
                for id, data in zip(ids, states, strict=True):
                    await connection.execute(
                        text("UPDATE evento_consumer_saga SET state = :state WHERE saga_id = :id"),
                        {"state": data.decode(), "id": id},
                    )
            async with group_of(store, state, ReadingSaga(seen)) as group:
                await group.ready()
                await add(store, *(ThingAddedEvent(f"T_{number}", number) for number in range(len(states))))
                await group.caught_up(30)
            dead = await state.dead_events(saga)
            assert {event.error_type for event in dead if not event.waiting} <= {"PayloadError"}
            assert {*seen, *(event.position for event in dead)} == set(range(1, 2 * len(states) + 1))

    asyncio.run(run())


@few
@given(st.lists(hostile_json(ERROR), min_size=5, max_size=20))
def test_unreadable_refusals_are_refusals(errors: list[bytes]) -> None:
    async def run(directory: Path) -> None:
        path = directory / "events.db"
        async with SqliteStateStore(path) as store:
            await store.reject("command", ErrorData(code="CommandRejected", type="CommandRejected", message="no"))
            for error in errors:
                damage(path, "UPDATE tombstones SET error = ?", error)
                assert isinstance(await store.lookup("command"), Refused)

    in_a_folder(run)


@few
@given(rows_of, st.integers(-(2**63), 2**63 - 1))
def test_the_command_line_shows_what_it_can(rows: list[tuple[bytes, bytes]], timestamp: int) -> None:
    async def run(directory: Path) -> None:
        path = directory / "events.db"
        await things(path, rows)
        damage(path, "UPDATE events SET timestamp = ? WHERE position = 1", timestamp)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))
        store = ["--store", f"sqlite:{folder}/events.db"]
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            for argv in [["list"], ["list", "--json"], *(["show", str(n)] for n in range(1, 6))]:
                assert main(["events", *argv, *store]) in (0, 1)
            assert main(["store", "verify", *store]) in (0, 1)
