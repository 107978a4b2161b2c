"""Replies that are held back while there is no connection to take them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

__all__ = ["MAX_HELD_BYTES", "HeldReplies"]

MAX_HELD_BYTES = 16 * 1024 * 1024
"""Bytes of replies that wait for a lost connection to come back; later ones are dropped."""
_OVERHEAD = 100


class HeldReplies:
    """Holds replies back, in their order, and bounded in bytes."""

    def __init__(self) -> None:
        self._replies: deque[tuple[bytes, bytes]] = deque()
        self._bytes = 0

    def hold(self, inbox: bytes, data: bytes) -> bool:
        """Hold a reply back; False when there is no room for it."""
        if self._bytes + len(data) > MAX_HELD_BYTES:
            return False
        self._replies.append((inbox, data))
        self._bytes += len(data) + _OVERHEAD
        return True

    def release(self) -> Iterator[tuple[bytes, bytes]]:
        """Hand out all of them."""
        while self._replies:
            inbox, data = self._replies.popleft()
            self._bytes -= len(data) + _OVERHEAD
            yield inbox, data
