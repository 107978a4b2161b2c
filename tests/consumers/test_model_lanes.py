"""Random lives of a projector and an observer with lanes: order per aggregate, and no gap behind a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hypothesis import HealthCheck, given, settings
from lives import EXAMPLES, KeyedLife, Script, Step, live, steps_of, things
from streams import TICK, ThingAddedEvent
from waiting import eventually

from evento import EventMessage, Observer, Projector, event_handler
from evento.consumers import ConsumerId

PROJECTOR = ConsumerId("test_bundle", "LaneProjector", 1, "*")
OBSERVER = ConsumerId("test_bundle", "LaneObserver", 1, "*")
LANES = 2


class LaneProjector(Projector, version=1):
    def __init__(self, script: Script) -> None:
        self._script = script

    @event_handler(retry=1, retry_delay=TICK, executor="lanes")
    async def on_added(self, event: ThingAddedEvent, message: EventMessage[Any]) -> None:
        await self._script.handle(message)


class LaneObserver(Observer, version=1):
    def __init__(self, script: Script) -> None:
        self._script = script

    @event_handler(retry=1, retry_delay=TICK, executor="lanes")
    async def on_added(self, event: ThingAddedEvent, message: EventMessage[Any]) -> None:
        await self._script.handle(message)


class LaneLife(KeyedLife):
    consumers = (PROJECTOR, OBSERVER)

    def readers(self) -> Sequence[object]:
        return LaneProjector(self.scripts[PROJECTOR]), LaneObserver(self.scripts[OBSERVER])

    def options(self) -> dict[str, Any]:
        # Its threads are made when a handler needs one, and async ones do not.
        return {"executors": {"lanes": ThreadPoolExecutor(LANES)}, "lanes": {"lanes": LANES}}

    async def step(self, what: str, argument: Any) -> None:
        await super().step(what, argument)
        held = {position for positions in self.model.held.values() for position in positions}
        if down := self.scripts[PROJECTOR].down - held:
            # What comes before the first of them is handled, and the checkpoint stays between.
            wall = min(down) - 1
            await eventually(lambda: all(status.position == wall for status in self.group.statuses()))

    async def compare(self) -> None:
        await super().compare()
        for consumer, script in self.scripts.items():
            assert script.most <= LANES
            assert not self.repeated(consumer)
            assert not await self.store.finished(consumer)  # swept: the checkpoint has passed them


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps_of(things, "down"))
def test_a_life(steps: list[Step]) -> None:
    live(LaneLife, steps)
