"""Random lives of a projector against a plain model of its promises.

Events of a few things arrive; handlers fail for ever or for a while, as a script says; the bundle is stopped, or dies
before its checkpoints; operators retry and discard. ``EVENTO_MODEL_EXAMPLES`` says how many lives are tried.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from streams import TICK, FaultyConsumerStore, ThingAddedEvent, add, group_of, make_rows

from evento import EventMessage, Projector, StoreUnavailable, TransientError, event_handler
from evento.consumers import ConsumerGroup, ConsumerId, SqlConsumerStateStore
from evento.state_store import StateStore
from evento.state_store.sqlite import SqliteStateStore

EXAMPLES = int(os.environ.get("EVENTO_MODEL_EXAMPLES", "12"))
PLAIN = ConsumerId("test_bundle", "PlainProjector", 1, "*")
EXACT = ConsumerId("test_bundle", "ExactProjector", 1, "*")

things = st.sampled_from("ABC")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(things, min_size=1, max_size=6)),
        st.tuples(st.just("poison"), st.lists(things, min_size=1, max_size=2)),
        st.tuples(st.just("transient"), st.lists(things, min_size=1, max_size=2)),
        st.tuples(st.just("settle"), st.none()),
        st.tuples(st.just("restart"), st.none()),
        st.tuples(st.just("crash"), st.lists(things, min_size=1, max_size=4)),
        st.tuples(st.just("mend and retry"), things),
        st.tuples(st.just("retry in vain"), things),
        st.tuples(st.just("discard"), things),
    ),
    min_size=3,
    max_size=12,
)


class Script:
    """What becomes of each position: poison fails until it is mended, a transient failure passes after one attempt."""

    def __init__(self) -> None:
        self.poison: set[int] = set()
        self.transient: set[int] = set()
        self.handled: list[tuple[int, str]] = []

    async def handle(self, message: EventMessage[Any]) -> None:
        if message.position in self.poison:
            raise ValueError("poison")
        if message.position in self.transient:
            self.transient.discard(message.position)
            raise TransientError("not now")
        self.handled.append((message.position, message.payload.thing_id))


class PlainProjector(Projector, version=1):
    def __init__(self, script: Script) -> None:
        self._script = script

    @event_handler(retry=1, retry_delay=TICK)
    async def on_added(self, event: ThingAddedEvent, message: EventMessage[Any]) -> None:
        await self._script.handle(message)


class ExactProjector(Projector, version=1):
    def __init__(self, script: Script) -> None:
        self._script = script

    @event_handler(retry=1, retry_delay=TICK)
    async def on_added(self, event: ThingAddedEvent, message: EventMessage[Any], connection: AsyncConnection) -> None:
        await connection.execute(
            text("INSERT INTO rows (position, thing_id) VALUES (:position, :thing_id)"),
            {"position": message.position, "thing_id": event.thing_id},
        )
        await self._script.handle(message)


class Model:
    """Which events are dead or wait, which are handled, worked out one after another."""

    def __init__(self) -> None:
        self.events: dict[int, str] = {}
        self.handled: dict[str, list[int]] = defaultdict(list)
        self.held: dict[str, list[int]] = defaultdict(list)
        self.discarded: set[int] = set()

    def deliver(self, position: int, thing: str, poison: set[int]) -> None:
        self.events[position] = thing
        if self.held[thing] or position in poison:
            self.held[thing].append(position)
        else:
            self.handled[thing].append(position)

    def retry(self, thing: str, poison: set[int]) -> None:
        """Handle what is held, up to the first that fails; what is not marked then waits behind it."""
        while self.held[thing] and self.held[thing][0] not in poison:
            self.handled[thing].append(self.held[thing].pop(0))

    def discard(self, thing: str, poison: set[int]) -> None:
        if self.held[thing]:
            self.discarded.add(self.held[thing].pop(0))
            self.retry(thing, poison)


class Life:
    """The real thing and the model, side by side."""

    def __init__(self, events: StateStore, store: SqlConsumerStateStore) -> None:
        self.events = events
        self.store = store
        self.faulty = FaultyConsumerStore(store)
        self.script = {PLAIN: Script(), EXACT: Script()}
        self.model = Model()
        self.poison: set[int] = set()
        self._stack = AsyncExitStack()
        self.group: ConsumerGroup

    async def start(self) -> None:
        readers = (PlainProjector(self.script[PLAIN]), ExactProjector(self.script[EXACT]))
        self._stack = AsyncExitStack()
        self.group = await self._stack.enter_async_context(group_of(self.events, self.faulty, *readers, take_over=True))
        await self.group.ready()

    async def stop(self) -> None:
        await self._stack.aclose()

    async def add(self, names: list[str], way: str = "add") -> None:
        """Append events, with the script for them set before they can be seen."""
        for name in names:
            position = len(self.model.events) + 1
            for script in self.script.values():
                if way == "poison":
                    script.poison.add(position)
                elif way == "transient":
                    script.transient.add(position)
            if way == "poison":
                self.poison.add(position)
            assert await add(self.events, ThingAddedEvent(name)) == position
            self.model.deliver(position, name, self.poison)

    async def step(self, what: str, argument: Any) -> None:
        match what:
            case "add" | "poison" | "transient":
                await self.add(argument, what)
            case "settle":
                await self.settle()
            case "restart":
                await self.stop()
                await self.start()
            case "crash":
                self.faulty.error = StoreUnavailable("the process is about to die")
                await self.add(argument)
                await asyncio.sleep(0.02)
                await self.stop()
                self.faulty.error = None
                await self.start()
            case "mend and retry" | "retry in vain":
                await self.settle()
                if what == "mend and retry":
                    self.mend(argument)
                for name in ("PlainProjector", "ExactProjector"):
                    await self.group.administration.retry(name, key=argument)
                self.model.retry(argument, self.poison)
                await self.settle()
            case "discard":
                await self.settle()
                if self.model.held[argument]:
                    for name in ("PlainProjector", "ExactProjector"):
                        await self.group.administration.discard(name, self.model.held[argument][0])
                self.model.discard(argument, self.poison)
                await self.settle()

    def mend(self, thing: str) -> None:
        healed = {position for position, name in self.model.events.items() if name == thing}
        self.poison -= healed
        for script in self.script.values():
            script.poison -= healed

    async def settle(self) -> None:
        """Wait until all is handled, and compare."""
        await self.group.caught_up(10)
        for consumer, script in self.script.items():
            parked = await self.store.dead_events(consumer, limit=1000)
            held = defaultdict(list)
            for event in parked:
                held[event.key].append(event.position)
                assert event.waiting or event.error_type == "ValueError"
            assert held == {thing: positions for thing, positions in self.model.held.items() if positions}
            for thing, wanted in self.model.handled.items():
                seen = [position for position, name in script.handled if name == thing]
                # At least once: after a crash a stretch comes again, but never a later event before an earlier one.
                assert list(dict.fromkeys(seen)) == wanted
            assert not self.model.discarded & {position for position, _ in script.handled}
        async with self.store.begin() as connection:
            rows = Counter(await connection.scalars(text("SELECT position FROM rows")))
        assert rows == Counter(
            position for wanted in self.model.handled.values() for position in wanted
        )  # exactly once


@settings(max_examples=EXAMPLES, deadline=None)
@given(steps)
def test_a_life(script: list[tuple[str, Any]]) -> None:
    async def live() -> None:
        async with (
            SqliteStateStore(None) as events,
            SqlConsumerStateStore("sqlite+aiosqlite://") as store,
        ):
            await make_rows(store)
            life = Life(events, store)
            await life.start()
            try:
                for what, argument in script:
                    await life.step(what, argument)
                await life.settle()
            finally:
                await life.stop()

    asyncio.run(live())
