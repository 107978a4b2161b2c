"""What only some handlers may ask for: the status of a projector, the fencing token of a lock."""

from __future__ import annotations

import msgspec

__all__ = ["FencingToken", "ProjectorStatus"]


class ProjectorStatus(msgspec.Struct, frozen=True, gc=False):
    """Where a projector stands while it handles an event.

    ``position`` is that of the handled event, ``head`` that of the newest event known, and ``head_reached`` whether the
    projector has caught up once since it started: use it to stay silent while history is replayed.
    """

    head_reached: bool
    position: int
    head: int


class FencingToken(int):
    """The number of the lock that a service command holds: whoever takes the lock later has a higher one.

    Pass it on to the outside system, so that it can refuse a holder that has lost the lock without knowing it.
    """

    __slots__ = ()
