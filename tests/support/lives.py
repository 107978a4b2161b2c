"""Random lives of consumers: what happens to them, step by step, beside a plain model of what they promise.

Events of a few things arrive; handlers fail for ever or for a while, as a script says; consumers are paused, stopped,
or die before their checkpoints; operators retry and discard. ``EVENTO_MODEL_EXAMPLES`` says how many lives are tried.
"""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, ClassVar

from hypothesis import strategies as st
from streams import FaultyConsumerStore, ThingAddedEvent, add, group_of, make_rows
from waiting import eventually

from evento import EventMessage, StoreUnavailable, TransientError
from evento.consumers import ConsumerGroup, ConsumerId, ConsumerState, SqlConsumerStateStore
from evento.messages import Event
from evento.state_store import StateStore
from evento.state_store.sqlite import SqliteStateStore

__all__ = ["EXAMPLES", "Item", "KeyedLife", "KeyedModel", "Life", "Script", "Step", "live", "steps_of", "things"]

EXAMPLES = int(os.environ.get("EVENTO_MODEL_EXAMPLES", "12"))

Item = Any
Step = tuple[str, Any]
things = st.sampled_from("ABC")


def steps_of(items: st.SearchStrategy[Item], *more: str, max_size: int = 12) -> st.SearchStrategy[list[Step]]:
    """Return lives: what :meth:`Life.step` knows; ``more`` are steps that add a few events in a way of their own.

    :param items: what is said about one event.
    """
    few = st.lists(items, min_size=1, max_size=2)
    ways = [st.tuples(st.just(way), few) for way in ("poison", "transient", *more)]
    asked = [st.tuples(st.just(what), things) for what in ("mend and retry", "retry in vain", "discard")]
    step = st.one_of(
        st.tuples(st.just("add"), st.lists(items, min_size=1, max_size=6)),
        *ways,
        st.tuples(st.sampled_from(["settle", "restart"]), st.none()),
        st.tuples(st.sampled_from(["crash", "pause"]), st.lists(items, min_size=1, max_size=4)),
        *asked,
    )
    return st.lists(step, min_size=3, max_size=max_size)


class Script:
    """What becomes of each position: poison fails until it is mended, a transient failure passes after one attempt,
    and what is ``down`` fails like an outage until it is up again.

    ``handled`` are the positions of the handlers that have ended well, ``most`` how many ran at a time.
    """

    def __init__(self) -> None:
        self.poison: set[int] = set()
        self.transient: set[int] = set()
        self.down: set[int] = set()
        self.handled: list[int] = []
        self.most = 0
        self._running = 0

    async def handle(self, message: EventMessage[Any]) -> None:
        """Fail or not."""
        self._running += 1
        self.most = max(self.most, self._running)
        try:
            await asyncio.sleep(0)
        finally:
            self._running -= 1
        position = message.position
        if position in self.poison:
            raise ValueError("poison")
        if position in self.transient or position in self.down:
            self.transient.discard(position)
            raise TransientError("not now")
        self.handled.append(position)


class KeyedModel:
    """Which events are dead or wait behind a dead one of their thing, and which are handled, in their order."""

    def __init__(self) -> None:
        self.handled: dict[str, list[int]] = defaultdict(list)
        self.held: dict[str, list[int]] = defaultdict(list)

    def deliver(self, position: int, item: Item, poison: set[int]) -> None:
        """Handle an event of a thing, or hold it."""
        if self.held[item] or position in poison:
            self.held[item].append(position)
        else:
            self.handled[item].append(position)

    def retry(self, thing: str, poison: set[int]) -> None:
        """Handle what is held, up to the first that fails; what is not marked then waits behind it."""
        while self.held[thing] and self.held[thing][0] not in poison:
            self.handled[thing].append(self.held[thing].pop(0))

    def discard(self, thing: str, poison: set[int]) -> int | None:
        """Forget the first that is held, and handle what waits behind it; return its position."""
        if not self.held[thing]:
            return None
        position = self.held[thing].pop(0)
        self.retry(thing, poison)
        return position


class Life(ABC):
    """Consumers and their models, side by side; each consumer has a script of its own."""

    consumers: ClassVar[Sequence[ConsumerId]]

    def __init__(self, events: StateStore, store: SqlConsumerStateStore) -> None:
        self.events = events
        self.store = store
        self.faulty = FaultyConsumerStore(store)
        self.scripts = {consumer: Script() for consumer in self.consumers}
        self.poison: set[int] = set()
        self.items: dict[int, Item] = {}
        self.discarded: set[int] = set()
        self.fresh: set[int] = set()
        """What may not be in a checkpoint yet."""
        self.repeatable: set[int] = set()
        """What may be handled twice: it was not in a checkpoint when the consumers died."""
        self._stack = AsyncExitStack()
        self.group: ConsumerGroup

    # What is different from kind to kind -------------------------------------------------------------------------

    @abstractmethod
    def readers(self) -> Sequence[object]:
        """Return new components."""

    @abstractmethod
    def event_of(self, item: Item) -> Event:
        """Return the event that an item speaks of."""

    @abstractmethod
    def deliver(self, position: int, item: Item) -> None:
        """Let the model take an event."""

    @abstractmethod
    async def ask(self, what: str, thing: str) -> None:
        """Retry or discard what is dead of a thing, and let the model do the same."""

    @abstractmethod
    async def compare(self) -> None:
        """Compare everything with the model, now that all is handled."""

    def repeated(self, consumer: ConsumerId) -> set[int]:
        """Return what a consumer has handled more than once, although it was in a checkpoint before any crash."""
        counts = Counter(self.scripts[consumer].handled)
        return {position for position, count in counts.items() if count > 1} - self.repeatable

    def thing_of(self, item: Item) -> str:
        """Return the thing that an item is about."""
        return str(item)

    def options(self) -> dict[str, Any]:
        """Return the options of the group."""
        return {}

    # Life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the consumers."""
        self._stack = AsyncExitStack()
        group = group_of(self.events, self.faulty, *self.readers(), take_over=True, **self.options())
        self.group = await self._stack.enter_async_context(group)
        await self.group.ready()

    async def stop(self) -> None:
        """Stop the consumers."""
        await self._stack.aclose()

    async def add(self, items: list[Item], way: str = "add") -> None:
        """Append events, with the script for them set before they can be seen."""
        for item in items:
            position = len(self.items) + 1
            self.items[position] = item
            self.fresh.add(position)
            for script in self.scripts.values():
                wanted: dict[str, set[int]] = {
                    "poison": script.poison,
                    "transient": script.transient,
                    "down": script.down,
                }
                if way in wanted:
                    wanted[way].add(position)
            if way == "poison":
                self.poison.add(position)
            assert await add(self.events, self.event_of(item)) == position
            self.deliver(position, item)

    async def step(self, what: str, argument: Any) -> None:
        """Let something happen."""
        match what:
            case "settle":
                await self.settle()
            case "restart":
                await self.stop()
                self.fresh.clear()
                await self.start()
            case "crash":
                self.faulty.error = StoreUnavailable("the process is about to die")
                await self.add(argument)
                await asyncio.sleep(0.02)  # how far the work gets before the end is left to chance
                await self.stop()
                self.repeatable |= self.fresh
                self.faulty.error = None
                await self.start()
            case "pause":
                await self._pause(argument)
            case "mend and retry" | "retry in vain" | "discard":
                await self.settle()
                if what == "mend and retry":
                    self._mend(argument)
                await self.ask("discard" if what == "discard" else "retry", argument)
                await self.settle()
            case way:
                await self.add(argument, way)

    async def settle(self) -> None:
        """Wait until all is handled, and compare."""
        for script in self.scripts.values():
            script.down.clear()
        await self.group.caught_up(20)
        self.fresh.clear()
        for script in self.scripts.values():
            assert not self.discarded & set(script.handled)
        await self.compare()

    def _mend(self, thing: str) -> None:
        healed = {position for position, item in self.items.items() if self.thing_of(item) == thing}
        self.poison -= healed
        for script in self.scripts.values():
            script.poison -= healed

    async def _pause(self, items: list[Item]) -> None:
        """Pause, add, restart, and resume: in between nothing is handled."""
        await self.settle()
        before = {consumer: list(script.handled) for consumer, script in self.scripts.items()}
        for consumer in self.consumers:
            await self.group.administration.pause(consumer)
        await eventually(lambda: all(status.state is ConsumerState.PAUSED for status in self.group.statuses()))
        await self.add(items)
        await eventually(lambda: all(status.head == len(self.items) for status in self.group.statuses()))
        await self.stop()
        await self.start()
        await eventually(lambda: all(status.state is ConsumerState.PAUSED for status in self.group.statuses()))
        assert before == {consumer: script.handled for consumer, script in self.scripts.items()}
        for consumer in self.consumers:
            await self.group.administration.resume(consumer)
        await self.settle()


class KeyedLife(Life):
    """The life of consumers that keep the events of each thing in order."""

    def __init__(self, events: StateStore, store: SqlConsumerStateStore) -> None:
        super().__init__(events, store)
        self.model = KeyedModel()

    def event_of(self, item: str) -> ThingAddedEvent:
        """Return the event of a thing."""
        return ThingAddedEvent(item)

    def deliver(self, position: int, item: str) -> None:
        """Let the model take an event."""
        self.model.deliver(position, item, self.poison)

    async def ask(self, what: str, thing: str) -> None:
        """Retry or discard what is dead of a thing, and let the model do the same."""
        if what == "retry":
            for consumer in self.consumers:
                await self.group.administration.retry(consumer, key=thing)
            self.model.retry(thing, self.poison)
        elif (position := self.model.discard(thing, self.poison)) is not None:
            self.discarded.add(position)
            for consumer in self.consumers:
                await self.group.administration.discard(consumer, position)

    async def compare(self) -> None:
        """Compare what is dead, and what was handled in which order."""
        for consumer, script in self.scripts.items():
            held = defaultdict(list)
            for event in await self.store.dead_events(consumer, limit=1000):
                held[event.key].append(event.position)
                assert event.waiting or event.error_type == "ValueError"
            assert held == {thing: positions for thing, positions in self.model.held.items() if positions}
            for thing, wanted in self.model.handled.items():
                seen = [position for position in script.handled if self.items[position] == thing]
                # At least once: after a crash a stretch comes again, but never a later event before an earlier one.
                assert list(dict.fromkeys(seen)) == wanted


def live(life: Callable[[StateStore, SqlConsumerStateStore], Life], steps: list[Step]) -> None:
    """Live through the steps, on stores in memory."""

    async def run() -> None:
        async with SqliteStateStore(None) as events, SqlConsumerStateStore("sqlite+aiosqlite://") as store:
            await make_rows(store)
            one = life(events, store)
            await one.start()
            try:
                for what, argument in steps:
                    await one.step(what, argument)
                await one.settle()
            finally:
                await one.stop()

    asyncio.run(run())
