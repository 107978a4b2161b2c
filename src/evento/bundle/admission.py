"""Admission: how many handlers run at a time, and how many requests may wait for one."""

from __future__ import annotations

import asyncio
from collections import deque

from evento.errors import Overloaded

__all__ = ["Admission"]


class Admission:
    """Bounds the running handlers of a bundle.

    Requests that a handler sends (``depth`` > 0) always enter: they hold up a handler that runs already, and making
    them wait for a free place would let a full house wait for itself. They are bounded by the requests in flight.
    """

    def __init__(self, *, limit: int, max_waiting: int) -> None:
        self._limit = limit
        self._max_waiting = max_waiting
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._idle: asyncio.Event | None = None
        self.running = 0

    async def enter(self, name: str, *, depth: int) -> None:
        """Enter, waiting for a free place; :class:`~evento.errors.Overloaded` when too many wait already."""
        if self.running < self._limit or depth:
            self.running += 1
            return
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded(
                f"{name} was refused: {self.running} handlers run and {len(self._waiting)} requests wait; send "
                "fewer at a time, or raise max_concurrent_handlers",
                running=self.running,
                waiting=len(self._waiting),
            )
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self.leave()  # the place was given just before the cancellation: give it on
            elif place in self._waiting:
                self._waiting.remove(place)
            raise

    def leave(self) -> None:
        """Leave: the next waiter takes the place, or the house is one handler emptier."""
        while self._waiting and self.running <= self._limit:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.running -= 1
        if self.running == 0 and self._idle is not None:
            self._idle.set()

    async def drained(self, timeout: float) -> bool:
        """Wait until no handler runs; False when some still run after ``timeout`` seconds."""
        if self.running:
            self._idle = asyncio.Event()
            try:
                async with asyncio.timeout(timeout):
                    await self._idle.wait()
            except TimeoutError:
                return self.running == 0
        return True
