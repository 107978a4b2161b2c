"""Random lives of projectors against a plain model of their promises: order per aggregate, at least or exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from lives import EXAMPLES, KeyedLife, Script, Step, live, steps_of, things
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from streams import TICK, ThingAddedEvent, rows

from evento import EventMessage, Projector, event_handler
from evento.consumers import ConsumerId

PLAIN = ConsumerId("test_bundle", "PlainProjector", 1, "*")
EXACT = ConsumerId("test_bundle", "ExactProjector", 1, "*")


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


class ProjectorLife(KeyedLife):
    consumers = (PLAIN, EXACT)

    def readers(self) -> Sequence[object]:
        return PlainProjector(self.scripts[PLAIN]), ExactProjector(self.scripts[EXACT])

    async def compare(self) -> None:
        await super().compare()
        assert not self.repeated(PLAIN)
        wanted = Counter(position for positions in self.model.handled.values() for position in positions)
        assert Counter(await rows(self.store)) == wanted  # exactly once


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps_of(things))
def test_a_life(steps: list[Step]) -> None:
    live(ProjectorLife, steps)
