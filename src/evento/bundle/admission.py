"""Admission: how many handlers run at a time, and how many requests may wait for one."""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf

from evento.errors import Overloaded

__all__ = ["Admission"]

_WEIGHT = 0.05
"""Of the last handler's time in the usual time."""
_SURE = 0.7
"""Of the time to the deadline that wait and handler may take, as far as one can tell: under overload all come close to
it, and what ends too late was done for nothing."""


class Admission:
    """Bounds the running handlers of a bundle.

    Requests that a handler sends (``depth`` > 0) always enter: they hold up a handler that runs already, and making
    them wait for a free place would let a full house wait for itself. They are bounded by the requests in flight.

    While more wait than run, a request whose turn would come too late for its deadline is refused at once. Otherwise
    the queue would grow until every request spent its time in it, and handlers only began what nobody waits for.
    """

    def __init__(self, *, limit: int, max_waiting: int) -> None:
        self._limit = limit
        self._max_waiting = max_waiting
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._idle: asyncio.Event | None = None
        self._usual = 0.0
        self.running = 0

    async def enter(self, name: str, *, depth: int, deadline: float = inf) -> None:
        """Enter, waiting for a free place.

        :param deadline: when the handler must have ended, in the event loop's time.
        :raises Overloaded: too many wait already, or too many for the deadline.
        """
        if self.running < self._limit or depth:
            self.running += 1
            return
        wait = self._usual * (len(self._waiting) + 1) / self._limit
        if len(self._waiting) >= self._limit and wait + self._usual > _SURE * (deadline - _now()):
            raise Overloaded(
                f"{name} was refused: {self.running} handlers run and {len(self._waiting)} requests wait, so that it "
                f"would be its turn in {wait:.3g} s, too late for its deadline; send fewer at a time, or run more "
                "replicas",
                running=self.running,
                waiting=len(self._waiting),
            )
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

    def leave(self, took: float | None = None) -> None:
        """Leave: the next waiter takes the place, or the house is one handler emptier.

        :param took: seconds that the place was taken, to tell how long the next ones will wait.
        """
        if took is not None:
            self._usual += (took - self._usual) * _WEIGHT if self._usual else took
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


def _now() -> float:
    return asyncio.get_running_loop().time()
