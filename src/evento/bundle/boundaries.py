"""Boundaries in one process: commands of one boundary run one after another, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

__all__ = ["Boundaries", "Hold"]


class Boundaries:
    """A lock per boundary, first come first served; a free boundary takes no memory and is entered without waiting.

    The store's versions keep the promise across processes; these locks only spare the conflicts within one.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def enter(self, boundary: str) -> asyncio.Future[None] | None:
        """Enter a boundary at once (None), or return the future to await with :meth:`wait`."""
        queue = self._waiting.get(boundary)
        if queue is None:
            self._waiting[boundary] = deque()
            return None
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        return turn

    async def wait(self, boundary: str, turn: asyncio.Future[None]) -> None:
        """Wait for one's turn; a cancelled waiter gives its turn on."""
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                queue = self._waiting.get(boundary)
                if queue is not None and turn in queue:
                    queue.remove(turn)
            else:
                self.leave(boundary)
            raise

    def leave(self, boundary: str) -> None:
        """Leave a boundary: the next waiter enters it."""
        queue = self._waiting[boundary]
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._waiting[boundary]

    def __len__(self) -> int:
        return len(self._waiting)


class Hold:
    """A boundary that is held: left by :meth:`release`, but not before the append in flight has ended.

    ``version`` is the boundary's version, where the boundary is not the aggregate itself.
    """

    __slots__ = ("_boundaries", "boundary", "until", "version")

    def __init__(self, boundaries: Boundaries, boundary: str) -> None:
        self._boundaries = boundaries
        self.boundary = boundary
        self.until: asyncio.Future[Any] | None = None
        self.version: int | None = None

    def release(self) -> None:
        """Leave the boundary, at once or when the append in flight has ended."""
        if self.until is not None and not self.until.done():
            self.until.add_done_callback(lambda _: self._boundaries.leave(self.boundary))
        else:
            self._boundaries.leave(self.boundary)
