"""What wakes a consumer, and who waits for it."""

from __future__ import annotations

import asyncio
import sys

__all__ = ["Signals", "Waiters", "wait_event"]

NEVER = sys.maxsize


async def wait_event(event: asyncio.Event, timeout: float) -> bool:
    """Return whether the event is set, at the latest after ``timeout`` seconds."""
    if not event.is_set():
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            pass
    return event.is_set()


class Signals:
    """Stopping, pausing and waking one consumer."""

    def __init__(self) -> None:
        self.stopping = False
        self.paused = False
        self.retry_wanted = False
        self._stop = asyncio.Event()
        self._halt = asyncio.Event()
        self._wake = asyncio.Event()

    def stop(self) -> None:
        """End all waits; no further event is begun."""
        self.stopping = True
        self._stop.set()
        self._halt.set()
        self._wake.set()

    def pause(self, paused: bool) -> None:
        """Let no further event of the stream be begun, or let them be begun again."""
        self.paused = paused
        if paused:
            self._halt.set()
        elif not self.stopping:
            self._halt.clear()
        self._wake.set()

    def retry(self) -> None:
        """Ask for a look at the dead event queue."""
        self.retry_wanted = True
        self._wake.set()

    def wake(self) -> None:
        """End a :meth:`rest`, the running or else the next one."""
        self._wake.set()

    async def rest(self, seconds: float) -> None:
        """Wait until something wakes the consumer, at most ``seconds``."""
        await wait_event(self._wake, seconds)
        if not self.stopping:
            self._wake.clear()

    async def back_off(self, seconds: float) -> bool:
        """Wait ``seconds`` before the next attempt; at once True when the consumer is to stop or to pause."""
        return await wait_event(self._halt, seconds)

    async def doze(self, seconds: float) -> bool:
        """Wait ``seconds``, whatever wakes the consumer; at once True when it is to stop."""
        return await wait_event(self._stop, seconds)


class Waiters:
    """Those who wait until a consumer has committed a position; ``wanted`` is the lowest of these positions."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], int] = {}
        self.wanted = NEVER

    async def wait(self, position: int, timeout: float) -> None:
        """Return when ``position`` is committed, or when everyone is released, at the latest after ``timeout``."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = position
        self.wanted = min(self.wanted, position)
        try:
            await asyncio.wait({future}, timeout=timeout)
        finally:
            self._waiting.pop(future, None)
            self.wanted = min(self._waiting.values(), default=NEVER)

    def passed(self, committed: int) -> None:
        """Release those whose position is committed."""
        if committed >= self.wanted:
            for future, position in self._waiting.items():
                if position <= committed and not future.done():
                    future.set_result(None)

    def release(self) -> None:
        """Release everyone."""
        self.passed(NEVER)
