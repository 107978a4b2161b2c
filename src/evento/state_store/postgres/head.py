"""The head as this process knows it, and who waits for it to rise.

Commits of this process wake at once. Those of other servers are noticed by looking every 20 ms, as long as somebody
waits: that is 10 ms on average, for 2 ms of processor time a second. A NOTIFY with each append would be noticed sooner,
and cost the appends of one store nothing that could be measured. But at its commit it takes a lock that all notifying
transactions of all databases of the server share, and a listener that is paused lets the server's queue of notices grow
until appends fail. Servers of a cluster tell each other of new heads over the gateway anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

__all__ = ["Head"]

_POLL_SECONDS = 0.02


class Head:
    """The newest position that is known; ``look`` asks the database."""

    def __init__(self, look: Callable[[], Awaitable[int]]) -> None:
        self._look = look
        self._position = 0
        self._waiters: set[asyncio.Future[None]] = set()
        self._watch: asyncio.Task[None] | None = None
        self._ended: Exception | None = None

    def saw(self, position: int) -> None:
        """Note a head, and wake who waits."""
        if position > self._position:
            self._position = position
            self._wake()

    async def aclose(self, error: Exception) -> None:
        """End the watch, and with ``error`` all waiting, also what has not quite begun."""
        self._ended = error
        self._wake(error)
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch

    async def read(self) -> int:
        """Return the head as of now."""
        self.saw(position := await self._look())
        return position

    async def wait(self, after: int, timeout: float) -> int:
        """Return the head as soon as it is beyond ``after``, at the latest after ``timeout`` seconds."""
        if self._position > after:
            return self._position
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        await self.read()
        while self._position <= after and (left := deadline - loop.time()) > 0:
            if self._ended is not None:
                raise self._ended
            await self._woken(left)
        return self._position

    async def _woken(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiters.add(waiter)
        if self._watch is None or self._watch.done():
            self._watch = loop.create_task(self._keep_looking(), name="evento-store-head")
        timer = loop.call_later(timeout, lambda: None if waiter.done() else waiter.set_result(None))
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)

    async def _keep_looking(self) -> None:
        while self._waiters:
            await asyncio.sleep(_POLL_SECONDS)
            try:
                await self.read()
            except Exception as error:
                self._wake(error)

    def _wake(self, error: Exception | None = None) -> None:
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)
