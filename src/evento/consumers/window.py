"""Window: which events of an observer, or of a consumer with lanes, are begun, finished, and behind its checkpoint."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Window"]


class Window:
    """The events beyond a checkpoint, which may end in any order.

    ``scanned`` is how far the stream was looked at. The checkpoint may move to :attr:`watermark`, up to which nothing
    is unfinished, whatever gaps the positions have. What is finished beyond it is remembered, so that it is not handled
    again after a restart.
    """

    def __init__(self, position: int, finished: Iterable[int] = ()) -> None:
        self.scanned = position
        self._open: dict[int, None] = {}  # ascending, for events are begun in their order
        self._finished = {one for one in finished if one > position}
        self._unsaved: set[int] = set()

    @property
    def watermark(self) -> int:
        """The position up to which nothing is unfinished."""
        return next(iter(self._open)) - 1 if self._open else self.scanned

    @property
    def unfinished(self) -> int:
        """How many events are begun and not finished."""
        return len(self._open)

    @property
    def remembered(self) -> int:
        """How many finished events have an unfinished one before them."""
        return len(self._finished) if self._open else 0

    @property
    def uncommitted(self) -> int:
        """How many finished events no checkpoint holds yet."""
        return len(self._unsaved)

    @property
    def unsaved(self) -> frozenset[int]:
        """The finished events that no checkpoint holds yet, neither passed nor remembered."""
        return frozenset(self._unsaved)

    def begin(self, position: int) -> bool:
        """Take note that an event is begun; False when it is finished already."""
        self.scan(position)
        if position in self._finished:
            return False
        self._open[position] = None
        return True

    def finish(self, position: int) -> None:
        """Take note that an event is handled, or in the dead event queue."""
        del self._open[position]
        self._finished.add(position)
        self._unsaved.add(position)

    def scan(self, position: int) -> None:
        """Take note that the stream was looked at up to a position."""
        self.scanned = max(self.scanned, position)

    def saved(self, watermark: int, remembered: frozenset[int]) -> None:
        """Take note of a checkpoint, and of what was remembered with it."""
        self._unsaved -= remembered
        self._unsaved = {one for one in self._unsaved if one > watermark}
        self._finished = {one for one in self._finished if one > watermark}
