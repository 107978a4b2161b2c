"""What travels between :class:`RemoteStateStore` and the server's store service: one request for each operation.

A call is a msgpack array: the format, the seconds that are left to its deadline, which store is meant, and the
operation's arguments.
Payloads are byte strings inside, never decoded on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import TypeAlias

import msgspec

from evento.errors import ErrorData
from evento.gateway.nats.calls import Operation
from evento.messages import EventRecord
from evento.state_store.port import (
    AlreadyStored,
    Append,
    Conflict,
    Deleted,
    EventFilter,
    Found,
    Lease,
    LeaseIsLost,
    LookupResult,
    Page,
    PurgeReport,
    Refused,
    Snapshot,
    StoreInfo,
    Story,
    VerifyReport,
)

__all__ = [
    "ADMIN_OPERATIONS",
    "FORMAT",
    "JOB",
    "OPERATIONS",
    "AppendCall",
    "Call",
    "EventCall",
    "Failed",
    "FetchCall",
    "HeadNotice",
    "Identity",
    "JobCall",
    "JobStarted",
    "JobStatus",
    "LockCall",
    "LookupCall",
    "PurgeCall",
    "RejectCall",
    "RenewCall",
    "SearchCall",
    "SnapshotCall",
    "Stored",
    "StoryCall",
    "UnlockCall",
    "WireOutcome",
]

FORMAT = 1
"""Rises when a neighbouring version could misread a call; new fields at the end of a struct do not raise it."""


class Call(msgspec.Struct, frozen=True, array_like=True):
    """What every call begins with.

    ``remaining`` are the seconds that were left to its deadline when it was sent, ``store`` the id and the epoch of the
    store that the sender began with: a server that keeps another one refuses. None: whichever the server keeps.
    """

    format: int
    remaining: float
    store: tuple[str, int] | None

    def __post_init__(self) -> None:
        """Refuse a time that no timer can take."""
        if isnan(self.remaining):
            raise ValueError("the time that remains is no number")


class AppendCall(Call, frozen=True, array_like=True):
    """Appends that a bundle queued; the answer's outcomes come in their order."""

    appends: list[Append]


class StoryCall(Call, frozen=True, array_like=True):
    """The arguments of ``story``."""

    aggregate_id: str
    boundary: str | None
    fingerprint: str | None
    after_version: int
    max_bytes: int


class FetchCall(Call, frozen=True, array_like=True):
    """The arguments of ``fetch``."""

    after: int
    contexts: Sequence[str]
    names: Sequence[str] | None
    limit: int
    max_bytes: int


class SnapshotCall(Call, frozen=True, array_like=True):
    """The argument of ``snapshot``."""

    snapshot: Snapshot


class LookupCall(Call, frozen=True, array_like=True):
    """The argument of ``lookup``."""

    command_id: str


class RejectCall(Call, frozen=True, array_like=True):
    """The arguments of ``reject``."""

    command_id: str
    error: ErrorData


class LockCall(Call, frozen=True, array_like=True):
    """The arguments of ``lock``."""

    lock_id: str
    owner: str
    ttl: float
    request: str | None = None


class RenewCall(Call, frozen=True, array_like=True):
    """The arguments of ``renew``."""

    lease: Lease
    ttl: float


class UnlockCall(Call, frozen=True, array_like=True):
    """The argument of ``unlock``."""

    lease: Lease


class SearchCall(Call, frozen=True, array_like=True):
    """The arguments of ``search``."""

    criteria: EventFilter
    after: int
    before: int | None
    limit: int
    descending: bool
    max_bytes: int


class EventCall(Call, frozen=True, array_like=True):
    """The argument of ``event``."""

    position: int


class PurgeCall(Call, frozen=True, array_like=True):
    """The arguments of ``purge``."""

    deleted_before: int
    dry_run: bool


class JobCall(Call, frozen=True, array_like=True):
    """Ask a job how far it is; ``cancel`` ends it. A job that nobody asks about ends by itself."""

    cancel: bool = False


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """Which store answers, and its head."""

    store_id: str
    epoch: int
    head: int


class Stored(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """One append of a batch is on disk: what its sender does not know yet. The event itself need not travel back."""

    position: int
    version: int | None
    boundary_version: int


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One append of a batch failed with an error; the others stand for themselves."""

    error: ErrorData


class JobStarted(msgspec.Struct, frozen=True, array_like=True):
    """A long operation runs; ``name`` is the operation to ask it about."""

    name: str


class JobStatus(msgspec.Struct, frozen=True, array_like=True):
    """How far a job is: the progress since the last question, and its report once it is done."""

    progress: list[tuple[int, int]]
    done: bool
    verified: VerifyReport | None = None
    purged: PurgeReport | None = None


class HeadNotice(msgspec.Struct, frozen=True, array_like=True):
    """The head has moved: published by a server after its commits."""

    format: int
    store_id: str
    head: int


WireOutcome: TypeAlias = Stored | AlreadyStored | Conflict | Deleted | Refused | LeaseIsLost | Failed


OPERATIONS = {
    "append": Operation(AppendCall, list[WireOutcome], format=FORMAT),
    "story": Operation(StoryCall, Story, format=FORMAT),
    "fetch": Operation(FetchCall, Page, format=FORMAT),
    "identity": Operation(Call, Identity, format=FORMAT),
    "head": Operation(Call, int, format=FORMAT),
    "snapshot": Operation(SnapshotCall, bool, format=FORMAT),
    "lookup": Operation(LookupCall, LookupResult, format=FORMAT),
    "reject": Operation(RejectCall, LookupResult, format=FORMAT),
    "lock": Operation(LockCall, Lease | None, format=FORMAT),
    "renew": Operation(RenewCall, bool, format=FORMAT),
    "unlock": Operation(UnlockCall, bool, format=FORMAT),
    "search": Operation(SearchCall, Found, format=FORMAT),
    "event": Operation(EventCall, EventRecord | None, format=FORMAT),
    "info": Operation(Call, StoreInfo, format=FORMAT),
    "verify": Operation(Call, JobStarted, format=FORMAT),
    "purge": Operation(PurgeCall, JobStarted, format=FORMAT),
}
"""Every operation that a server serves under ``store.<name>``."""

ADMIN_OPERATIONS = frozenset({"verify", "purge"})
"""Those that no bundle may call."""

JOB = Operation(JobCall, JobStatus, format=FORMAT)
"""Asking a job: served under the name that it was started with."""
