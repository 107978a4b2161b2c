"""Random lives of observers: at least once after a crash, once without one, in no order, within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from lives import EXAMPLES, Life, Script, Step, live, steps_of, things
from streams import TICK, ThingAddedEvent
from waiting import eventually

from evento import EventMessage, Observer, event_handler
from evento.consumers import ConsumerId, SqlConsumerStateStore
from evento.state_store import StateStore

WATCHER = ConsumerId("test_bundle", "WatchObserver", 1, "*")
CONCURRENCY = 3


class WatchObserver(Observer, version=1):
    def __init__(self, script: Script) -> None:
        self._script = script

    @event_handler(retry=1, retry_delay=TICK)
    async def on_added(self, event: ThingAddedEvent, message: EventMessage[Any]) -> None:
        await self._script.handle(message)


class ObserverLife(Life):
    """The model is two sets: what is dead, and what may come again."""

    consumers = (WATCHER,)

    def __init__(self, events: StateStore, store: SqlConsumerStateStore) -> None:
        super().__init__(events, store)
        self.dead: set[int] = set()

    def readers(self) -> Sequence[object]:
        return (WatchObserver(self.scripts[WATCHER]),)

    def options(self) -> dict[str, Any]:
        return {"observer_concurrency": CONCURRENCY}

    def event_of(self, item: str) -> ThingAddedEvent:
        return ThingAddedEvent(item)

    def deliver(self, position: int, item: str) -> None:
        if position in self.poison:
            self.dead.add(position)

    async def step(self, what: str, argument: Any) -> None:
        await super().step(what, argument)
        script = self.scripts[WATCHER]
        if script.down:
            # All others are handled beside it, and the checkpoint stays before it.
            others = set(self.items) - script.down - self.dead
            await eventually(lambda: set(script.handled) >= others - self.discarded)
            assert self.group.statuses()[0].position < min(script.down)

    async def ask(self, what: str, thing: str) -> None:
        mine = {position for position in self.dead if self.items[position] == thing}
        for position in mine:
            if what == "retry":
                await self.group.administration.retry(WATCHER, position)
            else:
                await self.group.administration.discard(WATCHER, position)
                self.discarded.add(position)
        self.dead -= mine - self.poison if what == "retry" else mine

    async def compare(self) -> None:
        script = self.scripts[WATCHER]
        parked = await self.store.dead_events(WATCHER, limit=1000)
        assert {event.position for event in parked} == self.dead
        assert all(event.key is None and not event.waiting for event in parked)
        assert set(script.handled) == set(self.items) - self.dead - self.discarded
        assert not self.repeated(WATCHER)
        assert script.most <= CONCURRENCY
        assert not await self.store.finished(WATCHER)  # swept: the checkpoint has passed them


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps_of(things, "down"))
def test_a_life(steps: list[Step]) -> None:
    live(ObserverLife, steps)
