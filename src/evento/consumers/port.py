"""The consumer state store's port: where consumers keep their place, and what every adapter promises.

Promises that hold for all adapters (``evento.testing.conformance`` checks them):

* The initial position of a consumer is stored once; whoever registers it later gets what is stored.
* One owner at a time holds the lease of a consumer. Every grant has a higher fencing token than all before.
* A checkpoint is committed only under the current token, together with the events that are parked at it and the sagas
  that have changed, or not at all: a holder that has lost its lease without knowing it can write nothing.
* An association belongs to one saga of a consumer at a time.
* What operators ask for (pause, retry, discard) is kept here, so that the holder of the lease finds it, whoever asked.
* Time is the database's: no clock of a process decides about a lease.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = [
    "Checkpoint",
    "CheckpointTransaction",
    "ConsumerId",
    "ConsumerLease",
    "ConsumerStateStore",
    "DeadEvent",
    "DeadEventFilter",
    "Directions",
    "SagaChange",
    "StoredConsumer",
    "StoredSaga",
]


@dataclass(frozen=True, slots=True, order=True)
class ConsumerId:
    """One consumer: a component of a bundle, in one version, reading the events of one context pattern.

    The four fields are the identity, everywhere. ``str()`` is for people and is never parsed.
    """

    bundle: str
    component: str
    version: int
    context: str

    def __str__(self) -> str:
        return f"{self.component} v{self.version} [{self.context}] of {self.bundle}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a consumer has come, in which history: all events up to ``position`` are handled or parked.

    ``store_id`` and ``epoch`` are those of the System State Store that the position belongs to.
    """

    position: int
    store_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Directions:
    """What operators want of a consumer.

    ``revision`` rises with everything that they ask for, so that one number tells whether there is something new.
    ``paused``: no live event is handled. ``dead_streak`` is the stored one: resuming a consumer sets it to 0.
    """

    revision: int = 0
    paused: bool = False
    dead_streak: int = 0


@dataclass(frozen=True, slots=True)
class StoredConsumer:
    """What is stored about a consumer.

    ``errors`` counts failures since the last progress, the first of them at ``failing_since`` (microseconds since
    1970); ``last_error`` stays after progress, for people. ``dead_streak`` counts events that were parked for their
    own failure since the last success. ``dead`` and ``waiting`` count the events in the dead event queue: those that
    failed, and those that wait behind them; ``retrying`` counts those of both that are to be handled again now.
    ``leased`` tells whether somebody holds the lease.
    """

    checkpoint: Checkpoint
    errors: int = 0
    last_error: str | None = None
    failing_since: int | None = None
    dead_streak: int = 0
    dead: int = 0
    waiting: int = 0
    retrying: int = 0
    directions: Directions = Directions()
    leased: bool = False


@dataclass(frozen=True, slots=True)
class ConsumerLease:
    """The right to work for a consumer; ``token`` is the fencing token, which rises with every grant."""

    consumer: ConsumerId
    owner: str
    token: int


@dataclass(frozen=True, slots=True)
class DeadEvent:
    """An event in the dead event queue of a consumer.

    The event itself stays in the System State Store, at ``position``. ``key`` is what it holds back: later events of
    the same key wait behind it (None: nothing waits). ``waiting`` events were never handled: their error fields are
    empty. ``attempts`` counts all that failed, retries included. ``retry`` marks a dead event that is to be handled
    again. ``parked_at`` is in microseconds since 1970, set by the store.
    """

    position: int
    event_id: str
    event_name: str
    context: str
    aggregate_id: str | None
    key: str | None
    waiting: bool = False
    error_type: str = ""
    error_message: str = ""
    traceback: str = ""
    attempts: int = 0
    retry: bool = False
    parked_at: int = 0


@dataclass(frozen=True, slots=True)
class StoredSaga:
    """One saga of a consumer: its id, and its state as JSON."""

    id: str
    state: bytes


@dataclass(frozen=True, slots=True)
class SagaChange:
    """What becomes of a saga: its new state, None when it has ended, and the associations that come and go.

    An association is ``property=value`` with the value as JSON, compared to the letter: ``order_id="7"`` is not
    ``order_id=7``.
    """

    id: str
    state: bytes | None
    added: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadEventFilter:
    """Which events of a dead event queue; all conditions must hold, None means any."""

    position: int | None = None
    key: str | None = None
    event_name: str | None = None
    error_type: str | None = None
    waiting: bool | None = None
    retry: bool | None = None


class CheckpointTransaction(Protocol):
    """An open transaction of the consumer state store's database, in which handlers write and the checkpoint moves.

    ``connection`` is for handlers; they never commit or roll back.
    """

    @property
    def connection(self) -> AsyncConnection:
        """The connection that the transaction is open on."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether the transaction can still be committed: False once a handler has ended it."""
        ...

    @property
    def patience(self) -> float:
        """For how many seconds a handler may wait for something else than the database."""
        ...

    def watched(self, handler: str) -> AbstractAsyncContextManager[None]:
        """Run a handler in the block: it is cancelled when it waits for something else for too long.

        :raises TransactionTooLong: it was; the transaction is to be rolled back.
        """
        ...

    async def commit(
        self,
        position: int,
        *,
        parked: Sequence[DeadEvent] = (),
        resolved: Sequence[int] = (),
        dead_streak: int | None = 0,
    ) -> None:
        """Write the checkpoint as the last statement, fenced, and commit; :class:`LeaseLost` rolls all back."""
        ...


class ConsumerStateStore(Protocol):
    """Keeps checkpoints, leases and dead events of consumers.

    An async context manager: nothing is opened before ``__aenter__``. All operations raise
    :class:`~evento.errors.StoreUnavailable` when the database cannot answer; a write that raised it may have happened.
    """

    async def __aenter__(self) -> ConsumerStateStore:
        """Open the store, migrating an older schema; :class:`~evento.errors.SchemaTooNew` for a newer one."""
        ...

    async def __aexit__(self, *exc_info: object) -> None:
        """Close all connections."""
        ...

    @property
    def holds_writer(self) -> bool:
        """Whether a :meth:`transaction` of this store keeps everybody from writing, as it does on SQLite.

        Until it ends no lease can be granted or renewed: who holds one, holds it still.
        """
        ...

    async def register(self, consumer: ConsumerId, initial: Checkpoint) -> StoredConsumer:
        """Store the initial checkpoint unless the consumer is known; return what is stored."""
        ...

    async def load(self, consumer: ConsumerId) -> StoredConsumer | None:
        """Return what is stored about a consumer; None when it was never registered."""
        ...

    async def acquire(
        self, consumer: ConsumerId, *, owner: str, ttl: float, take_over: bool = False
    ) -> ConsumerLease | None:
        """Grant the lease for ``ttl`` seconds, or return None while another owner holds it.

        The holder may ask again: it gets a new token, and its old one is void. ``take_over`` grants it whoever holds
        it: for those who know that no other holder can be alive.
        """
        ...

    async def renew(self, lease: ConsumerLease, *, ttl: float) -> bool:
        """Extend the lease; False when its token is not the current one."""
        ...

    async def release(self, lease: ConsumerLease) -> bool:
        """Give the lease back, so that others need not wait; False when it was lost before."""
        ...

    async def commit(
        self,
        lease: ConsumerLease,
        position: int,
        *,
        parked: Sequence[DeadEvent] = (),
        resolved: Sequence[int] = (),
        dead_streak: int | None = 0,
        sagas: Sequence[SagaChange] = (),
        finished: Collection[int] | None = None,
    ) -> None:
        """Move the checkpoint, park events and write sagas, in one transaction; counted errors are reset.

        ``finished`` are positions beyond ``position`` whose events are handled already: they are remembered until the
        checkpoint has passed them. None: by a consumer that handles events in their order, and never has any.

        All associations that go are gone before others come, so that one may pass from saga to saga.

        :param resolved: positions of dead events that are handled by now: they leave the queue.
        :param dead_streak: None leaves the stored one as it is.
        :raises LeaseLost: the token is not the current one; nothing is written.
        """
        ...

    def transaction(self, lease: ConsumerLease) -> AbstractAsyncContextManager[CheckpointTransaction]:
        """Open a transaction for handlers; it rolls back unless it was committed before the block ends."""
        ...

    async def record_error(self, lease: ConsumerLease, error: str) -> None:
        """Count a failure; nothing happens when the lease is lost."""
        ...

    # The dead event queue ----------------------------------------------------------------------------------------

    async def dead_keys(self, consumer: ConsumerId) -> frozenset[str]:
        """Return the keys that have events in the dead event queue."""
        ...

    async def dead_events(
        self,
        consumer: ConsumerId,
        criteria: DeadEventFilter = DeadEventFilter(),
        *,
        after: int = 0,
        limit: int = 100,
    ) -> Sequence[DeadEvent]:
        """Return dead and waiting events that match, with positions beyond ``after``, ascending."""
        ...

    async def retryable(self, consumer: ConsumerId, *, after: int = 0, limit: int = 100) -> Sequence[DeadEvent]:
        """Return the events that are to be handled again now, with positions beyond ``after``, ascending.

        They are the dead ones that are marked and the waiting ones, except behind an unmarked dead one of their key.
        """
        ...

    async def put_back(self, lease: ConsumerLease, event: DeadEvent) -> None:
        """Note that a retry has failed: the event is dead, unmarked, with this error.

        Nothing happens when it was discarded meanwhile.

        :raises LeaseLost: the token is not the current one; nothing is written.
        """
        ...

    # What operators ask for --------------------------------------------------------------------------------------

    async def consumers(self, *, bundle: str | None = None) -> Sequence[ConsumerId]:
        """Return the consumers that were ever registered, all of them or those of a bundle."""
        ...

    async def directions(self, bundle: str) -> Mapping[ConsumerId, Directions]:
        """Return what operators want of the consumers of a bundle; one who was never asked for anything is absent."""
        ...

    async def set_paused(self, consumer: ConsumerId, paused: bool) -> None:
        """Pause or resume a consumer; one that is not registered yet still starts where it would have started.

        Resuming sets its streak of dead events to 0.
        """
        ...

    async def mark(self, consumer: ConsumerId, criteria: DeadEventFilter, *, retry: bool) -> int:
        """Mark dead events for a retry, or take the mark off; return how many match. Waiting events have no mark."""
        ...

    async def discard(
        self, consumer: ConsumerId, criteria: DeadEventFilter, *, limit: int = 100
    ) -> Sequence[DeadEvent]:
        """Remove the first events that match from the queue, for ever, and return them.

        Events that wait behind a removed one become retryable.
        """
        ...

    async def finished(self, consumer: ConsumerId) -> frozenset[int]:
        """Return the positions beyond the checkpoint whose events are handled already."""
        ...

    async def find_saga(self, consumer: ConsumerId, association: str) -> StoredSaga | None:
        """Return the saga that has an association; None when there is none."""
        ...

    async def sagas(self, consumer: ConsumerId, *, after: str = "", limit: int = 100) -> Sequence[StoredSaga]:
        """Return the sagas of a consumer with ids beyond ``after``, ascending."""
        ...
