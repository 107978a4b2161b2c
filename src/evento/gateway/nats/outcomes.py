"""Replies that could not be given: what their senders may still ask for."""

from __future__ import annotations

import asyncio

__all__ = ["Outcomes"]

MAX_COUNT = 4096
MAX_BYTES = 16 * 1024 * 1024


class Outcomes:
    """Keeps replies until their deadline, bounded in count and bytes: the oldest go first."""

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[bytes, float]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, inbox: bytes) -> bool:
        return inbox in self._kept

    def keep(self, inbox: bytes, reply: bytes, deadline: float) -> None:
        """Keep the reply that was meant for an inbox."""
        self.take(inbox)
        self._kept[inbox] = (reply, deadline)
        self._bytes += len(reply)
        while len(self._kept) > MAX_COUNT or self._bytes > MAX_BYTES:
            self.take(next(iter(self._kept)))

    def take(self, inbox: bytes) -> bytes | None:
        """Hand a reply out, which ends its keeping."""
        reply, _ = self._kept.pop(inbox, (None, 0.0))
        if reply is not None:
            self._bytes -= len(reply)
        return reply

    def forget_expired(self) -> None:
        """Forget what nobody waits for any more."""
        now = asyncio.get_running_loop().time()
        for inbox in [inbox for inbox, (_, deadline) in self._kept.items() if deadline <= now]:
            self.take(inbox)
