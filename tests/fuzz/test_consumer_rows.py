"""Whatever the rows of a consumer state store hold, an error names the row and the mend, and nothing is skipped."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import hostile_json
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from streams import TICK, ThingAddedEvent, add, group_of
from waiting import eventually

from evento import EventMessage, PayloadError, Projector, Saga, SagaState, event_handler, saga_event_handler
from evento.consumers import ConsumerGroup, ConsumerId, ConsumerState, SqlConsumerStateStore
from evento.consumers.port import DeadEvent
from evento.state_store import StateStore
from evento.state_store.sqlite import SqliteStateStore

SAGA = b'{"associations":{"number":1},"ended":false,"steps":[1]}'
PROJECTOR = ConsumerId("test_bundle", "FragileProjector", 1, "*")
COUNTER = ConsumerId("test_bundle", "CounterSaga", 1, "*")
NO_TEXT = b"T_\xff\xfe"

few = settings(max_examples=int(os.environ.get("EVENTO_FUZZ_EXAMPLES", "150")) // 25, deadline=None)
values = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.sampled_from(["", "abc", "T_1", "\0", "99999999999999999999"]),
    st.binary(max_size=8),
)


class Poison:
    """Which positions fail, and what was handled."""

    def __init__(self, *positions: int) -> None:
        self.positions = set(positions)
        self.handled: list[int] = []

    def take(self, position: int) -> None:
        if position in self.positions:
            raise ValueError("poison")
        self.handled.append(position)


class FragileProjector(Projector, version=1):
    def __init__(self, poison: Poison) -> None:
        self._poison = poison

    @event_handler(retry=0)
    async def on_added(self, event: ThingAddedEvent, message: EventMessage[Any]) -> None:
        self._poison.take(message.position)


class CounterState(SagaState):
    steps: list[int] = []


class CounterSaga(Saga[CounterState], version=1):
    def __init__(self, poison: Poison) -> None:
        self._poison = poison

    @saga_event_handler(init=True, association_property="number", retry=0)
    async def on_added(
        self, event: ThingAddedEvent, message: EventMessage[Any], state: CounterState | None
    ) -> CounterState:
        self._poison.take(message.position)
        state = state or CounterState()
        state.set_association("number", event.number)
        state.steps.append(message.position)
        return state


class ReadingProjector(Projector, version=1):
    """Reads a text of its read model, on the connection of the checkpoint."""

    @event_handler(retry=1, retry_delay=TICK)
    async def on_added(self, event: ThingAddedEvent, connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT CAST(x'ff41' AS TEXT)"))


@pytest.fixture
async def stores() -> AsyncIterator[tuple[StateStore, SqlConsumerStateStore]]:
    """An event store and a consumer state store in memory."""
    async with opened() as both:
        yield both


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[StateStore, SqlConsumerStateStore]]:
    """Open an event store and a consumer state store in memory."""
    async with SqliteStateStore(None) as events, SqlConsumerStateStore("sqlite+aiosqlite://") as state:
        yield events, state


@asynccontextmanager
async def running(events: StateStore, state: SqlConsumerStateStore, *readers: object) -> AsyncIterator[ConsumerGroup]:
    """Run consumers."""
    async with group_of(events, state, *readers, take_over=True) as group:
        await group.ready()
        yield group


async def damage(store: SqlConsumerStateStore, statement: str, **values: object) -> None:
    """Change rows behind everybody's back."""
    async with store.begin() as connection:
        assert (await connection.execute(text(statement), values)).rowcount >= 1


async def a_dead_event_and_one_behind_it(events: StateStore, state: SqlConsumerStateStore) -> Poison:
    """Leave positions 1 (dead) and 3 (waiting) of T_1 in the queue; 2 of T_2 is handled."""
    poison = Poison(1)
    async with running(events, state, FragileProjector(poison)) as group:
        await add(events, *(ThingAddedEvent(name) for name in ("T_1", "T_2", "T_1")))
        await group.caught_up(30)
    assert poison.handled == [2]
    return poison


# The dead event queue ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("held_key = CAST(:value AS TEXT)", NO_TEXT),
        ("held_key = :value", NO_TEXT),
        ("waiting = :value", "abc"),
        ("waiting = :value", 2),
        ("retry = :value", b"\1"),
        ("waiting = CAST(:value AS TEXT)", NO_TEXT),
        ("retry = CAST(:value AS TEXT)", NO_TEXT),
    ],
)
async def test_a_row_that_may_hold_anything_back_holds_its_consumer_until_it_is_discarded(
    stores: tuple[StateStore, SqlConsumerStateStore], change: str, value: object
) -> None:
    events, state = stores
    poison = await a_dead_event_and_one_behind_it(events, state)
    await damage(state, f"UPDATE evento_consumer_dead_event SET {change} WHERE position = 1", value=value)
    poison.positions.clear()
    async with running(events, state, FragileProjector(poison)) as group:
        await add(events, ThingAddedEvent("T_2"))
        await eventually(lambda: group.statuses()[0].state is ConsumerState.PAUSED)
        status = group.statuses()[0]
        assert status.errors > 0
        assert "position 1 of FragileProjector v1" in str(status.last_error)
        assert "evento consumers dead discard FragileProjector 1" in str(status.last_error)
        assert poison.handled == [2]
        await group.administration.discard("FragileProjector", 1)
        await group.caught_up(30)
    assert poison.handled == [2, 3, 4]
    assert not await state.dead_events(PROJECTOR)


async def test_an_event_that_is_nowhere_holds_its_consumer_until_its_row_is_removed(
    stores: tuple[StateStore, SqlConsumerStateStore],
) -> None:
    events, state = stores
    poison = await a_dead_event_and_one_behind_it(events, state)
    await damage(state, "UPDATE evento_consumer_dead_event SET position = 'abc' WHERE position = 1")
    with pytest.raises(PayloadError, match=r"'abc'.*remove the row from evento_consumer_dead_event"):
        await state.dead_events(PROJECTOR)
    async with running(events, state, FragileProjector(poison)) as group:
        await eventually(lambda: group.statuses()[0].errors > 0)
        assert "'abc'" in str(group.statuses()[0].last_error)
        await damage(state, "DELETE FROM evento_consumer_dead_event WHERE position = 'abc'")
        await group.caught_up(30)
    assert poison.handled == [2, 3]


async def test_what_is_only_for_people_may_be_damaged(stores: tuple[StateStore, SqlConsumerStateStore]) -> None:
    events, state = stores
    poison = await a_dead_event_and_one_behind_it(events, state)
    await damage(
        state,
        "UPDATE evento_consumer_dead_event SET error_type = :bytes, error_message = CAST(:bytes AS TEXT),"
        " traceback = CAST(:bytes AS TEXT), event_context = CAST(:bytes AS TEXT), aggregate_id = CAST(:bytes AS TEXT),"
        " attempts = 'abc', parked_at = x'00' WHERE position = 1",
        bytes=NO_TEXT,
    )
    dead = (await state.dead_events(PROJECTOR))[0]
    assert (dead.position, dead.key, dead.error_message, dead.attempts) == (1, "T_1", "T_\\udcff\\udcfe", 0)
    poison.positions.clear()
    async with running(events, state, FragileProjector(poison)) as group:
        await group.administration.retry("FragileProjector", 1)
        await group.caught_up(30)
    assert poison.handled == [2, 1, 3]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("event_name = CAST(x'ff' AS TEXT)", "has no handler for .udcff any more: discard the event"),
        ("event_id = CAST(x'ff' AS TEXT)", "not .udcff which had failed.*discard it"),
        ("position = 2", "not event-.* which had failed.*discard it"),
        ("position = 77", "has no event at position 77 any more: discard it"),
    ],
)
async def test_a_row_of_another_event_is_not_handled(
    stores: tuple[StateStore, SqlConsumerStateStore], change: str, error: str
) -> None:
    events, state = stores
    poison = await a_dead_event_and_one_behind_it(events, state)
    await damage(state, f"UPDATE evento_consumer_dead_event SET {change} WHERE position = 1")
    poison.positions.clear()
    async with running(events, state, FragileProjector(poison)) as group:
        await group.administration.retry("FragileProjector", all=True)
        await group.caught_up(30)
        dead = [event for event in await group.administration.dead("FragileProjector") if not event.waiting]
    assert [(event.error_type, event.retry) for event in dead] == [("NotFound", False)]
    assert re.search(error, dead[0].error_message)
    assert 1 not in poison.handled


columns = ["event_id", "event_name", "event_context", "aggregate_id", "held_key", "waiting", "error_type"]
columns += ["error_message", "traceback", "attempts", "parked_at", "retry", "position"]


@few
@given(st.lists(st.tuples(st.sampled_from(columns), values, st.booleans()), min_size=1, max_size=3))
def test_any_damage_of_the_queue_is_named_or_harmless(changes: list[tuple[str, Any, bool]]) -> None:
    async def run() -> None:
        async with opened() as (events, state):
            poison = await a_dead_event_and_one_behind_it(events, state)
            poison.positions.clear()
            for column, value, as_text in changes:
                new = "CAST(:value AS TEXT)" if as_text else ":value"
                await damage(
                    state,
                    f"UPDATE OR IGNORE evento_consumer_dead_event SET {column} = COALESCE({new}, {column})"
                    " WHERE waiting <> 1 OR position <> 3",
                    value=value,
                )
            async with running(events, state, FragileProjector(poison)) as group:
                await add(events, ThingAddedEvent("T_1"), ThingAddedEvent("T_2"))
                await eventually(lambda: group.statuses()[0].position == 5 or group.statuses()[0].errors > 0)
                error = group.statuses()[0].last_error or ""
                if group.statuses()[0].position != 5:
                    assert "dead event at position" in error, error
                    assert "discard" in error or "remove the row" in error
                    assert poison.handled == [2]
                else:
                    assert 5 in poison.handled
                    try:
                        queue: list[DeadEvent] = list(await group.administration.dead("FragileProjector"))
                    except PayloadError as named:  # such as a number that is no text either
                        if "was changed from outside" in str(named):
                            return
                        raise
                    assert {event.position for event in queue} | set(poison.handled) >= {2, 3, 4, 5}

    asyncio.run(run())


# Sagas ---------------------------------------------------------------------------------------------------------------


@few
@given(st.lists(hostile_json(SAGA), min_size=5, max_size=10), st.booleans())
def test_saga_states_of_any_bytes_make_dead_events(states: list[bytes], as_text: bool) -> None:
    async def run() -> None:
        poison, count = Poison(), len(states)
        async with opened() as (events, state):
            async with running(events, state, CounterSaga(poison)) as group:
                await add(events, *(ThingAddedEvent(f"T_{number}", number) for number in range(count)))
                await group.caught_up(30)
            ids = [saga.id for saga in await state.sagas(COUNTER, limit=1000)]
            new = "CAST(:state AS TEXT)" if as_text else ":state"
            for id, data in zip(ids, states, strict=True):
                statement = f"UPDATE evento_consumer_saga SET state = {new} WHERE saga_id = :id"
                await damage(state, statement, id=id, state=data)
            for _ in range(2):  # the second time there are dead events from before
                async with running(events, state, CounterSaga(poison)) as group:
                    await add(events, *(ThingAddedEvent(f"T_{number}", number) for number in range(count)))
                    await group.caught_up(30)
            dead = await state.dead_events(COUNTER, limit=1000)
            assert {*poison.handled, *(event.position for event in dead)} == set(range(1, 3 * count + 1))
            for event in dead:
                assert event.waiting or event.error_type == "PayloadError"
                assert event.waiting or any(f"saga {id} " in event.error_message for id in ids)

    asyncio.run(run())


@pytest.mark.parametrize("value", ["gone", b"\xff", 7])
async def test_an_association_of_no_saga_makes_dead_events(
    stores: tuple[StateStore, SqlConsumerStateStore], value: object
) -> None:
    events, state = stores
    poison = Poison()
    async with running(events, state, CounterSaga(poison)) as group:
        await add(events, ThingAddedEvent("T_1", 1), ThingAddedEvent("T_2", 2))
        await group.caught_up(30)
    await damage(
        state,
        "UPDATE evento_consumer_saga_association SET saga_id = CAST(:value AS TEXT) WHERE association = 'number=1'",
        value=value,
    )
    for _ in range(2):  # the second time there is a dead event from before
        async with running(events, state, CounterSaga(poison)) as group:
            await add(events, ThingAddedEvent("T_1", 1), ThingAddedEvent("T_2", 2))
            await group.caught_up(30)
    assert poison.handled == [1, 2, 4, 6]
    dead = await state.dead_events(COUNTER)
    assert [(event.position, event.key, event.waiting) for event in dead] == [
        (3, "number=1", False),
        (5, "number=1", True),
    ]
    assert dead[0].error_type == "PayloadError"
    assert "the association number=1 of CounterSaga" in dead[0].error_message
    assert "remove the row from evento_consumer_saga_association" in dead[0].error_message
    await damage(state, "DELETE FROM evento_consumer_saga_association WHERE association = 'number=1'")
    async with running(events, state, CounterSaga(poison)) as group:
        await group.administration.retry("CounterSaga", all=True)
        await group.caught_up(30)
    assert poison.handled == [1, 2, 4, 6, 3, 5]


# Other rows, and what handlers read ----------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["position", "epoch", "errors", "dead_streak", "lease_until"])
async def test_a_checkpoint_that_is_no_number_refuses_to_start(
    stores: tuple[StateStore, SqlConsumerStateStore], column: str
) -> None:
    events, state = stores
    await a_dead_event_and_one_behind_it(events, state)
    await damage(state, f"UPDATE evento_consumer SET {column} = 'abc'")
    with pytest.raises(PayloadError, match=f"FragileProjector v1.*{column} is 'abc'.*restore"):
        async with running(events, state, FragileProjector(Poison())):
            pass


async def test_a_text_of_the_read_model_that_is_no_text_is_no_outage(
    stores: tuple[StateStore, SqlConsumerStateStore],
) -> None:
    events, state = stores
    async with running(events, state, ReadingProjector()) as group:
        await add(events, ThingAddedEvent("T_1"))
        await group.caught_up(30)
        dead = await group.administration.dead("ReadingProjector")
    assert [(event.position, event.error_type, event.attempts) for event in dead] == [(1, "OperationalError", 2)]
    assert "Could not decode to UTF-8" in dead[0].error_message


async def test_a_name_that_is_no_text_is_no_outage(stores: tuple[StateStore, SqlConsumerStateStore]) -> None:
    events, state = stores
    await a_dead_event_and_one_behind_it(events, state)
    await damage(state, "UPDATE evento_consumer SET component = CAST(x'ff' AS TEXT)")
    with pytest.raises(PayloadError, match=r"Could not decode to UTF-8 column 'component'.*restore it"):
        await state.consumers()


# The servers, which refuse most of this -------------------------------------------------------------------------------


@pytest.fixture
async def served(database: str) -> AsyncIterator[tuple[StateStore, SqlConsumerStateStore]]:
    """An event store in memory, and a consumer state store on a server."""
    async with SqliteStateStore(None) as events, SqlConsumerStateStore(database) as state:
        yield events, state


async def test_saga_states_of_any_text_on_a_server_make_dead_events(
    served: tuple[StateStore, SqlConsumerStateStore],
) -> None:
    events, state = served
    whole = SAGA.decode()
    texts = ["", "null", "[]", "{", whole[:-1], whole + "x", whole.replace("1", '"1"'), whole.replace("[1]", "1e999")]
    texts += ["[" * 10_000, r'{"steps":["\ud800"]}', '{"associations":{"number":[]}}', "\N{SNOWMAN}", whole.upper()]
    poison, count = Poison(), len(texts)
    adding = [ThingAddedEvent(f"T_{number}", number) for number in range(count)]
    async with running(events, state, CounterSaga(poison)) as group:
        await add(events, *adding)
        await group.caught_up(30)
    for number, new in enumerate(texts):
        owner = "SELECT saga_id FROM evento_consumer_saga_association WHERE association = :association"
        change = f"UPDATE evento_consumer_saga SET state = :state WHERE saga_id = ({owner})"
        await damage(state, change, association=f"number={number}", state=new)
    async with running(events, state, CounterSaga(poison)) as group:
        await add(events, *adding)
        await group.caught_up(30)
    dead = await state.dead_events(COUNTER, limit=1000)
    assert {*poison.handled, *(event.position for event in dead)} == set(range(1, 2 * count + 1))
    assert {event.error_type for event in dead} == {"PayloadError"}
    assert all("of the saga" in event.error_message or "saga " in event.error_message for event in dead)
    assert len(dead) >= count - 1


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("event_name = '\N{SNOWMAN}'", "has no handler for .* any more: discard the event"),
        ("event_id = ''", "not  which had failed.*discard it"),
        ("position = 2", "not event-.* which had failed.*discard it"),
        ("position = 77", "has no event at position 77 any more: discard it"),
    ],
)
async def test_a_row_of_another_event_on_a_server_is_not_handled(
    served: tuple[StateStore, SqlConsumerStateStore], change: str, error: str
) -> None:
    events, state = served
    poison = await a_dead_event_and_one_behind_it(events, state)
    await damage(state, f"UPDATE evento_consumer_dead_event SET {change} WHERE position = 1")
    poison.positions.clear()
    async with running(events, state, FragileProjector(poison)) as group:
        await group.administration.retry("FragileProjector", all=True)
        await group.caught_up(30)
        dead = [event for event in await group.administration.dead("FragileProjector") if not event.waiting]
    assert [(event.error_type, event.retry) for event in dead] == [("NotFound", False)]
    assert re.search(error, dead[0].error_message)
    assert 1 not in poison.handled


@pytest.mark.parametrize("change", ["waiting = 2", "retry = -1"])
async def test_a_flag_on_mariadb_that_is_neither_holds_its_consumer_until_it_is_discarded(
    mariadb_database: str, change: str
) -> None:
    async with SqliteStateStore(None) as events, SqlConsumerStateStore(mariadb_database) as state:
        poison = await a_dead_event_and_one_behind_it(events, state)
        await damage(state, f"UPDATE evento_consumer_dead_event SET {change} WHERE position = 1")
        poison.positions.clear()
        async with running(events, state, FragileProjector(poison)) as group:
            await add(events, ThingAddedEvent("T_2"))
            await eventually(lambda: group.statuses()[0].errors > 0)
            assert "evento consumers dead discard FragileProjector 1" in str(group.statuses()[0].last_error)
            await group.administration.discard("FragileProjector", 1)
            await group.caught_up(30)
        assert poison.handled == [2, 3, 4]
        assert not await state.dead_events(PROJECTOR)


async def test_an_association_of_no_saga_on_a_server_makes_a_dead_event(
    served: tuple[StateStore, SqlConsumerStateStore],
) -> None:
    events, state = served
    poison = Poison()
    async with running(events, state, CounterSaga(poison)) as group:
        await add(events, ThingAddedEvent("T_1", 1))
        await group.caught_up(30)
    await damage(state, "UPDATE evento_consumer_saga_association SET saga_id = 'gone'")
    async with running(events, state, CounterSaga(poison)) as group:
        await add(events, ThingAddedEvent("T_1", 1))
        await group.caught_up(30)
    (dead,) = await state.dead_events(COUNTER)
    assert (dead.position, dead.error_type) == (2, "PayloadError")
    assert "remove the row from evento_consumer_saga_association" in dead.error_message
