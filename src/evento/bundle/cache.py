"""The state cache: aggregates that were just used need no load."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from time import monotonic
from typing import Any, TypeAlias

__all__ = ["CachedState", "StateCache", "StateKey"]

StateKey: TypeAlias = tuple[str, str]
"""Component and aggregate id: components that share an aggregate's events each fold a state of their own."""


class CachedState:
    """A folded state.

    ``version`` and ``boundary_version`` (None: not known) are those of its stream row; ``since_snapshot`` counts the
    events folded after the newest snapshot. ``confirmed`` says that the store was asked for it, and not the cache.
    """

    __slots__ = ("boundary_version", "confirmed", "expires", "since_snapshot", "state", "version")

    def __init__(self, state: Any, *, version: int, boundary_version: int | None, since_snapshot: int) -> None:
        self.state = state
        self.version = version
        self.boundary_version = boundary_version
        self.since_snapshot = since_snapshot
        self.confirmed = True
        self.expires = 0.0

    def copy(self) -> CachedState | None:
        """Return one that nothing changes which is done to this one's state; None when that cannot be copied."""
        try:
            state = deepcopy(self.state)
        except Exception:  # users put into it what they like
            return None
        return CachedState(
            state,
            version=self.version,
            boundary_version=self.boundary_version,
            since_snapshot=self.since_snapshot,
        )


class StateCache:
    """A bounded LRU of states with expiry.

    An entry is taken out while a command uses it and put back only after a confirmed append: a state that never was is
    never found here. One that is not the newest any more may be, as others store events too: the store's versions
    refuse what was decided on it. ``size`` 0 turns the cache off.
    """

    def __init__(self, *, size: int, expiry: float, clock: Callable[[], float] = monotonic) -> None:
        self._entries: OrderedDict[StateKey, CachedState] = OrderedDict()
        self._size = size
        self._expiry = expiry
        self._clock = clock

    def take(self, key: StateKey) -> CachedState | None:
        """Take an aggregate's state out of the cache; None when it is not there or too old."""
        entry = self._entries.pop(key, None)
        if entry is None or entry.expires < self._clock():
            return None
        return entry

    def put(self, key: StateKey, entry: CachedState) -> None:
        """Put a state into the cache; the least recently used one gives way."""
        entry.confirmed = False
        entry.expires = self._clock() + self._expiry
        self._entries[key] = entry
        self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)
