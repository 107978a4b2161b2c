"""Progress: what a consumer has handled, and when that becomes its checkpoint."""

from __future__ import annotations

import math
from contextlib import AsyncExitStack
from time import monotonic

from evento.consumers.port import CheckpointTransaction, ConsumerLease, ConsumerStateStore, DeadEvent
from evento.consumers.saga_changes import SagaChanges
from evento.consumers.signals import Waiters
from evento.consumers.status import Standing
from evento.errors import DefinitionError

__all__ = ["Progress"]

SCAN_INTERVAL = 5.0
"""Progress over events that did not concern the consumer is cheap to repeat: it is committed this seldom (seconds)."""


class Progress:
    """The checkpoint of one tenure.

    Handled events are committed together: ``interval`` seconds after the first of them, or at once when somebody
    waits for them. A handler that asks for the database's connection opens a transaction, and then the checkpoint
    commits in it; so a batch of events is one transaction.
    """

    def __init__(
        self,
        store: ConsumerStateStore,
        lease: ConsumerLease,
        *,
        standing: Standing,
        waiters: Waiters,
        interval: float,
    ) -> None:
        self._store = store
        self._lease = lease
        self._standing = standing
        self._waiters = waiters
        self._interval = interval
        self._parked: list[DeadEvent] = []
        self._resolved: list[int] = []
        self._transaction: CheckpointTransaction | None = None
        self._stack = AsyncExitStack()
        self._due = math.inf
        self.position = standing.committed
        self.sagas = SagaChanges(store, lease.consumer)
        self.in_transaction = False

    @property
    def is_clean(self) -> bool:
        """Whether everything handled is committed."""
        return self.position == self._standing.committed and not self.sagas.pending

    async def transaction(self) -> CheckpointTransaction:
        """Return the transaction that the next checkpoint commits in."""
        if self._transaction is None:
            self._transaction = await self._stack.enter_async_context(self._store.transaction(self._lease))
            self.in_transaction = True
            self._due = min(self._due, monotonic() + self._interval)  # others wait from now on, not from its first end
        return self._transaction

    def passed(self, position: int, now: float) -> bool:
        """Take note that the event at ``position`` is handled or parked; return whether to commit now."""
        self.position = self._standing.handled = position
        if self._due > now + self._interval:
            self._due = now + self._interval
        return now >= self._due or self._waiters.wanted <= position

    def scanned(self, position: int) -> None:
        """Take note that nothing up to ``position`` concerns the consumer."""
        if position > self.position:
            self.position = self._standing.handled = position
            if self._due is math.inf:
                self._due = monotonic() + SCAN_INTERVAL

    def park(self, event: DeadEvent) -> None:
        """Keep an event for the dead event queue; it is written with the next checkpoint."""
        self._parked.append(event)

    def resolve(self, position: int) -> None:
        """Take note that a dead event is handled; it leaves the queue with the next checkpoint."""
        self._resolved.append(position)

    def is_due(self, now: float) -> bool:
        """Whether the checkpoint is to be committed now."""
        return now >= self._due or (self._waiters.wanted <= self.position and not self.is_clean)

    def due_in(self) -> float:
        """Return the seconds until the checkpoint is due; infinite when there is nothing to commit."""
        return self._due - monotonic()

    async def commit(self) -> None:
        """Commit what is handled, if anything is.

        :raises LeaseLost: another owner works for the consumer now; nothing was committed.
        """
        if self.is_clean and not self._resolved and self._transaction is None:
            self._due = math.inf
            return
        position, parked, resolved = self.position, self._parked, self._resolved
        # A retry says nothing about the stream: what somebody who resumes the consumer has set meanwhile stays.
        streak = None if resolved else self._standing.dead_streak
        if self._transaction is None:
            changes = self.sagas.pending
            await self._store.commit(
                self._lease, position, parked=parked, resolved=resolved, dead_streak=streak, sagas=changes
            )
            self.sagas.committed()
        else:
            self.check_open()
            await self._transaction.commit(position, parked=parked, resolved=resolved, dead_streak=streak)
            await self._close()
        self._parked, self._resolved = [], []
        self._due = math.inf
        self._standing.advanced(position)
        self._standing.dead += sum(not event.waiting for event in parked)
        self._standing.waiting += sum(event.waiting for event in parked)
        self._waiters.passed(position)

    async def rollback(self) -> None:
        """Undo everything since the last checkpoint that was written in a transaction, and go back to it."""
        await self._close()
        self._parked, self._resolved = [], []
        self.sagas.drop()
        self._due = math.inf
        self.position = self._standing.handled = self._standing.committed

    def check_open(self) -> None:
        """Raise when a handler has ended the transaction."""
        if self._transaction is not None and not self._transaction.is_open:
            raise DefinitionError(
                f"a handler of {self._lease.consumer} has committed or rolled back its injected connection: leave "
                "that to the consumer, which commits the checkpoint in the same transaction"
            )

    async def _close(self) -> None:
        self._transaction = None
        self.in_transaction = False
        await self._stack.aclose()
