"""The System State Store's port: what every adapter does, and what it promises.

Promises that hold for all adapters (``evento.testing.conformance`` checks them):

* An append that was answered with :class:`Appended` is on disk. Nothing that was answered otherwise is stored.
* Positions are 1, 2, 3 ... in commit order, without gaps: a reader that has seen position p has seen every event up to
  p, for ever. Purged events leave a named range.
* Versions of an aggregate are 1, 2, 3 ...; an append with an expected version is refused unless it is the current one.
* One command id has one event. An append whose command id is known returns the stored event, whatever it expected.
* A deleted aggregate takes no further event.

The structs travel as arrays (msgpack): a field that is added goes to the end and has a default, so that a server and
a bundle of neighbouring versions understand each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast

import msgspec

from evento.errors import ErrorData
from evento.messages import EventRecord

__all__ = [
    "AlreadyStored",
    "Append",
    "AppendOutcome",
    "Appended",
    "Conflict",
    "Deleted",
    "EVENT_OVERHEAD",
    "EventFilter",
    "Found",
    "Lease",
    "LeaseIsLost",
    "MAX_READ_BYTES",
    "LookupResult",
    "NewEvent",
    "Page",
    "PurgeReport",
    "Refused",
    "Snapshot",
    "StateStore",
    "StoreInfo",
    "Story",
    "VerifyReport",
]

MAX_TOMBSTONE_SECONDS = 300.0
"""How long a tombstone refuses a late append: the longest deadline that a request may have."""

MAX_READ_BYTES = 4 * 1024 * 1024
"""How much one read returns unless it is asked for more or less."""

EVENT_OVERHEAD = 512
"""What an event counts for beside its payload and its metadata, wherever bytes are bounded: its ids, names, and place
in memory. So a bound on bytes is one on the number of events, too."""


class NewEvent(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An event that is not stored yet: an :class:`EventRecord` without position and version."""

    context: str
    aggregate_id: str | None
    name: str
    schema_version: int
    kind: str
    payload: bytes
    metadata: bytes
    event_id: str
    command_id: str
    correlation_id: str
    causation_id: str | None
    timestamp: int


class Lease(msgspec.Struct, frozen=True, array_like=True):
    """A held lock: ``token`` is the fencing token, which rises with every grant of ``lock_id``."""

    lock_id: str
    token: int


class Append(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One event to store, and under which conditions.

    ``expected_version``: the aggregate's version that the event was decided on (0: no events yet); None: not checked.
    ``boundary``: the lock id under which the command was decided; its version is counted on its own stream row and
    must equal ``expected_boundary_version`` (None: not checked, but still counted). For most commands the boundary is
    the aggregate itself. ``deletes`` marks the stream as deleted in the same transaction. ``lease`` must still be held.
    """

    event: NewEvent
    expected_version: int | None = None
    boundary: str | None = None
    expected_boundary_version: int | None = None
    deletes: bool = False
    lease: Lease | None = None


class Appended(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=True):
    """The event is on disk."""

    record: EventRecord
    boundary_version: int = 0


class AlreadyStored(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The command id is known: this is its event, nothing was added.

    ``record`` is None when the event was purged: the aggregate was deleted since.
    """

    record: EventRecord | None
    name: str
    aggregate_id: str | None


class Conflict(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Decided on an old state: the versions that the append met. What it lacks is read by :meth:`StateStore.story`."""

    version: int
    boundary_version: int


class Deleted(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The aggregate is deleted (``deleted_at`` in microseconds since 1970)."""

    deleted_at: int


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A tombstone refuses this command id: the command was answered with ``error`` before."""

    error: ErrorData


class LeaseIsLost(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The lease of the append is not held any more."""


AppendOutcome: TypeAlias = Appended | AlreadyStored | Conflict | Deleted | Refused | LeaseIsLost
LookupResult: TypeAlias = AlreadyStored | Refused | None


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """The folded state of an aggregate after ``version``, as JSON; valid for one ``fingerprint`` only."""

    aggregate_id: str
    version: int
    fingerprint: str
    state: bytes
    updated_at: int = 0


class Story(msgspec.Struct, frozen=True, array_like=True):
    """What an aggregate's state is made of: a snapshot and the events after it, up to ``version``, or a part of them.

    ``version`` is 0 and ``deleted_at`` None for an aggregate without events. ``boundary_version`` is that of the
    boundary which was asked for, read in the same instant; 0 when none was. The events of a part end before
    ``version``: :func:`~evento.state_store.story_parts` asks on.
    """

    aggregate_id: str
    version: int
    boundary_version: int
    deleted_at: int | None
    snapshot: Snapshot | None
    events: Sequence[EventRecord]

    @property
    def told(self) -> int:
        """The version up to which snapshot and events tell."""
        if self.events:
            return cast(int, self.events[-1].version)
        return self.version if self.snapshot is None else self.snapshot.version

    @property
    def is_cut(self) -> bool:
        """Whether this is a part, and the next one begins after the version that is :attr:`told`."""
        return self.told < self.version


class Page(msgspec.Struct, frozen=True, array_like=True):
    """Events after a position, ascending, and the position up to which the store has looked.

    ``scanned_to`` >= the last event's position: a selective reader advances although nothing matched. There may be
    more exactly when ``scanned_to`` < ``head``: the page was cut by count or bytes, or the store has looked as far as
    one call should take. Go on from ``scanned_to``.
    """

    events: Sequence[EventRecord]
    scanned_to: int
    head: int


class Found(msgspec.Struct, frozen=True, array_like=True):
    """Events that were searched for. With ``more`` the search was cut by count or bytes: go on beyond the last one."""

    events: Sequence[EventRecord]
    more: bool


class EventFilter(msgspec.Struct, frozen=True, array_like=True):
    """Which events to search; all conditions must hold. Times are microseconds since 1970, ``until`` is exclusive."""

    name: str | None = None
    aggregate_id: str | None = None
    context: str | None = None
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What a store is and holds. ``location`` is for people; sizes are bytes."""

    store_id: str
    epoch: int
    schema_version: int
    head: int
    events: int
    aggregates: int
    deleted_aggregates: int
    snapshots: int
    purged_ranges: int
    size: int
    location: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The outcome of :meth:`StateStore.verify`: empty ``problems`` means that every invariant holds."""

    events: int
    aggregates: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every invariant holds."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """What :meth:`StateStore.purge` removed (or would remove)."""

    aggregates: int
    events: int
    ranges: tuple[tuple[int, int], ...]


class StateStore(Protocol):
    """The System State Store.

    An adapter is an async context manager: nothing is opened before ``__aenter__``, everything is closed after
    ``__aexit__``, which first brings queued appends to an answer. All operations raise
    :class:`~evento.errors.StoreUnavailable` when the store cannot answer (``definite`` says whether a write may have
    happened) and :class:`~evento.errors.Overloaded` when its bounded queue is full.
    """

    async def __aenter__(self) -> StateStore:
        """Open the store, migrating an older schema; :class:`~evento.errors.SchemaTooNew` for a newer one."""
        ...

    async def __aexit__(self, *exc_info: object) -> None:
        """Answer what is queued, then close."""
        ...

    @property
    def store_id(self) -> str:
        """The store's own id, made when it was created."""
        ...

    @property
    def epoch(self) -> int:
        """Rises whenever the history may have been replaced, such as by restoring a backup."""
        ...

    def append(self, append: Append) -> asyncio.Future[AppendOutcome]:
        """Queue one append and return the future of its outcome.

        Cancelling the future does not withdraw the append. Appends queued together are committed together: each sees
        the earlier ones, a rejected one leaves no trace, and the rest commits. An event that the store cannot keep,
        such as one whose payload is not text, fails alone with :class:`~evento.errors.PayloadError`.

        :raises Overloaded: at once, not through the future.
        :raises StoreUnavailable: at once when the store is not open or only reads, else through the future.
        """
        ...

    async def story(
        self,
        aggregate_id: str,
        *,
        boundary: str | None = None,
        fingerprint: str | None = None,
        after_version: int = 0,
        max_bytes: int = MAX_READ_BYTES,
    ) -> Story:
        """Load what an aggregate's state is made of, as of one instant.

        With ``fingerprint`` the newest snapshot of that fingerprint is used, unless it is older than
        ``after_version``; events start after the snapshot, or after ``after_version``.

        A story of more than ``max_bytes`` is cut (:attr:`Story.is_cut`), and the rest is asked for with the version
        that it tells as ``after_version``. The snapshot counts with its state, an event with its payload, its metadata
        and :data:`EVENT_OVERHEAD`. It tells more than was known in any case: a snapshot or an event is returned, even
        if it alone is larger.
        """
        ...

    async def fetch(
        self,
        after: int,
        *,
        contexts: Sequence[str] = ("*",),
        names: Sequence[str] | None = None,
        limit: int = 1000,
        max_bytes: int = MAX_READ_BYTES,
    ) -> Page:
        """Read events after a position, in order.

        A context may hold ``*`` as a wildcard for any text. ``names`` None means all names. At least one event is
        returned where one matches, even if it alone is larger than ``max_bytes``; it counts as in :meth:`story`.
        """
        ...

    async def head(self) -> int:
        """Return the position of the newest event, 0 in an empty store."""
        ...

    async def wait(self, after: int, timeout: float) -> int:
        """Return the head as soon as it is beyond ``after``, at the latest after ``timeout`` seconds."""
        ...

    async def snapshot(self, snapshot: Snapshot) -> bool:
        """Keep a snapshot; False when a newer one of its fingerprint exists or the aggregate is deleted.

        It is False, too, for a version that the aggregate does not have. Two fingerprints are kept for each aggregate,
        the most recently written.
        """
        ...

    async def lookup(self, command_id: str) -> LookupResult:
        """Return the outcome of a command id; None when the store knows nothing of it."""
        ...

    async def reject(self, command_id: str, error: ErrorData) -> LookupResult:
        """Write a tombstone for a command id, in the order of the appends.

        Returns the known outcome instead, and writes nothing, when there is one.
        """
        ...

    async def lock(self, lock_id: str, *, owner: str, ttl: float, request: str | None = None) -> Lease | None:
        """Grant a leased lock for ``ttl`` seconds of the store's clock, or None while another owner holds it.

        An owner that asks again while it holds the lock gets None too: one grant, one holder. Only the same ``request``
        (an id, sent again because the answer was lost) is granted the same lease once more.
        """
        ...

    async def renew(self, lease: Lease, *, ttl: float) -> bool:
        """Extend a lease; False when it is lost."""
        ...

    async def unlock(self, lease: Lease) -> bool:
        """Give a lock back; False when the lease was lost before."""
        ...

    async def search(
        self,
        criteria: EventFilter,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int = 100,
        descending: bool = False,
        max_bytes: int = MAX_READ_BYTES,
    ) -> Found:
        """Return events that match, with positions between ``after`` and ``before`` (both exclusive).

        There are at most ``limit`` of them, or as many as ``max_bytes`` hold, counted as in :meth:`story`: at least
        one, where one matches and ``limit`` allows it. A server may return fewer: ``more`` tells.

        Their ``deleted_at`` says when their aggregate was deleted; other reads, :meth:`event` apart, leave it out.
        """
        ...

    async def event(self, position: int) -> EventRecord | None:
        """Return the event at a position; None when there is none, or it was purged."""
        ...

    async def info(self) -> StoreInfo:
        """Describe the store."""
        ...

    async def verify(self, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
        """Read the whole store, as of one instant, and report each broken invariant.

        ``progress`` is told how many events are read, and the head.
        """
        ...

    async def purge(
        self, *, deleted_before: int, dry_run: bool = False, progress: Callable[[int, int], None] | None = None
    ) -> PurgeReport:
        """Remove the events of aggregates that were deleted before a moment (microseconds since 1970).

        The stream row, the deleting event and the command ids stay, so that nothing can be stored twice. ``progress``
        is told how many events are removed, and about how many there are. A purge that was cancelled is gone on with
        by the next one.
        """
        ...
