"""Lanes: many events at a time, those of an aggregate in their order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from zlib import crc32

from evento.components import ComponentDefinition, HandlerKind, Injectable

__all__ = ["Lane", "Lanes", "lanes_of"]


class Lane:
    """Lets one event in at a time, first come, first served: an async context manager.

    ``load`` is how many events are in it or on their way to it.
    """

    __slots__ = ("_lock", "load")

    def __init__(self) -> None:
        self.load = 0
        self._lock = asyncio.Lock()  # fair

    async def __aenter__(self) -> None:
        """Wait until all that came before have left."""
        await self._lock.acquire()

    async def __aexit__(self, *exc_info: object) -> None:
        """Let the next one in."""
        self.load -= 1
        self._lock.release()


class Lanes:
    """The lanes of one consumer: a key has always the same one."""

    def __init__(self, count: int) -> None:
        self._lanes = [Lane() for _ in range(count)]

    def lane_of(self, key: str | None) -> Lane:
        """Return the lane of an event, which is to enter it; without a key, the one with the least to do."""
        if key is None:
            lane = min(self._lanes, key=lambda one: one.load)
        else:
            lane = self._lanes[crc32(key.encode()) % len(self._lanes)]
        lane.load += 1
        return lane


def lanes_of(component: ComponentDefinition, lanes: Mapping[str, int]) -> int:
    """Return how many lanes the events of a component run in; 0 when it names no executor with lanes.

    :raises DefinitionError: it names two of them, or one beside a handler that writes in the checkpoint's transaction.
    """
    handlers = component.handlers_of(HandlerKind.EVENT)
    named = sorted({handler.executor for handler in handlers if handler.executor in lanes and handler.executor})
    if not named:
        return 0
    if len(named) > 1:
        raise component.error(
            f"its handlers name the partitioned executors {', '.join(map(repr, named))}: all events of a component "
            "run in the same lanes, so name one"
        )
    for handler in handlers:
        if handler.needs(Injectable.CONNECTION) or handler.needs(Injectable.SESSION):
            raise component.error(
                f"{handler.name} asks for the transaction of the checkpoint, but with the partitioned executor "
                f"{named[0]!r} events run side by side and share no transaction: remove executor=, or open a "
                "connection of your own"
            )
    return lanes[named[0]]
