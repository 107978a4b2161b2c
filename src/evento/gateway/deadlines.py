"""Deadlines of many requests, with one timer of the event loop for all of them.

Setting and cancelling a timer for each request costs several microseconds, and hardly one of them ever fires. So
deadlines lie in slots of ten milliseconds, and one timer waits for the earliest slot.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Protocol, cast

__all__ = ["Deadline", "Deadlines", "Expiring"]

_SLOTS_PER_SECOND = 100


class Expiring(Protocol):
    """What has a deadline."""

    def expire(self) -> None:
        """Take note that it is over; called once, from the event loop."""


class Deadlines:
    """Keeps the deadlines of one event loop. Each is noticed at its moment or up to ten milliseconds later."""

    def __init__(self) -> None:
        self._slots: dict[int, set[Expiring]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0
        self._closed = False

    @property
    def is_waiting(self) -> bool:
        """Whether its timer runs."""
        return self._timer is not None

    def at(self, moment: float) -> Deadline:
        """Return a deadline in the event loop's time, to be used by ``with`` in a task."""
        return Deadline(self, moment)

    def watch(self, moment: float, one: Expiring) -> int:
        """Let ``one`` expire at a moment of the event loop's time; return its slot, for :meth:`forget`."""
        slot = int(moment * _SLOTS_PER_SECOND) + 1
        found = self._slots.get(slot)
        if found is not None:
            found.add(one)
            return slot
        self._slots[slot] = {one}
        if self._timer is None or slot < self._next:
            self._wait_for(slot)
        return slot

    def forget(self, slot: int, one: Expiring) -> None:
        """Let ``one`` go; the timer stays and finds nothing, which costs less than moving it."""
        found = self._slots.get(slot)
        if found is not None:
            found.discard(one)
            if not found:
                del self._slots[slot]
                if self._closed:
                    self.close()

    def close(self) -> None:
        """Take the timer back as soon as nothing is watched any more."""
        self._closed = True
        if self._timer is not None and not self._slots:
            self._timer.cancel()
            self._timer = None

    def _wait_for(self, slot: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = slot
        self._timer = asyncio.get_running_loop().call_at(slot / _SLOTS_PER_SECOND, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time() * _SLOTS_PER_SECOND
        for slot in [slot for slot in self._slots if slot <= now]:
            for one in self._slots.pop(slot):
                one.expire()
        if self._slots:
            self._wait_for(min(self._slots))


class Deadline:
    """Like ``asyncio.timeout_at()``: cancels the task inside, and turns that into :class:`TimeoutError`."""

    __slots__ = ("_cancelling", "_deadlines", "_moment", "_slot", "_task", "expired")

    def __init__(self, deadlines: Deadlines, moment: float) -> None:
        self._deadlines = deadlines
        self._moment = moment
        self.expired = False

    def __enter__(self) -> Deadline:
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._cancelling = self._task.cancelling()
        self._slot = self._deadlines.watch(self._moment, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.expired:
            self._deadlines.forget(self._slot, self)
        elif self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Cancel the task inside."""
        self.expired = True
        self._task.cancel()
