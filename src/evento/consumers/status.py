"""Where a consumer stands."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass, field
from datetime import datetime

from evento.components import Role
from evento.consumers.dead_events import summary_of
from evento.consumers.port import ConsumerId, StoredConsumer
from evento.messages import from_micros, now_micros

__all__ = ["ConsumerState", "ConsumerStatus", "Standing"]


class ConsumerState(enum.Enum):
    """What a consumer is doing."""

    STOPPED = "stopped"
    STARTING = "starting"
    """Its bundle runs, but it does not work yet: it takes its lease, or waits for the projectors with
    ``wait_for_head_reached=True``."""
    STANDBY = "standby"
    """Another replica holds the lease."""
    RUNNING = "running"
    RETRYING = "retrying"
    """A handler or a store fails; it will be tried again."""
    PAUSED = "paused"
    """An operator has paused it, too many events went to the dead event queue without a success in between, or what is
    stored about it was damaged (``last_error`` names the row)."""


@dataclass(frozen=True, slots=True)
class ConsumerStatus:
    """A consumer at one moment.

    ``position`` is its committed checkpoint. ``lag_events`` counts the events of the store behind the last one that it
    has looked at, whether they concern it or not. ``errors`` counts failures since the last progress, the first of
    them at ``failing_since``. ``dead`` and ``waiting`` count the events in its dead event queue, and ``retrying`` those
    of both that are to be handled again now. On a standby the figures are those of its last look at the store.

    ``lag_seconds`` is the age of the oldest event that it has not looked at yet, None where nobody has asked the event
    store. ``role`` is None where only the stores are known, and not the component.
    """

    id: ConsumerId
    role: Role | None
    state: ConsumerState
    position: int
    head: int
    lag_events: int
    head_reached: bool
    errors: int
    last_error: str | None
    failing_since: datetime | None
    dead: int
    waiting: int
    retrying: int = 0
    lag_seconds: float | None = None

    @property
    def is_at_work(self) -> bool:
        """Whether this replica is the one that works for the consumer, be it paused."""
        return self.state not in {ConsumerState.STANDBY, ConsumerState.STARTING, ConsumerState.STOPPED}

    @property
    def healthy(self) -> bool:
        """Whether the consumer works, or another replica does."""
        return self.state in {ConsumerState.RUNNING, ConsumerState.STANDBY}


@dataclass(slots=True)
class Standing:
    """The same, while it changes. ``handled`` runs ahead of ``committed`` by what no checkpoint holds yet."""

    state: ConsumerState = ConsumerState.STARTING
    handled: int = 0
    committed: int = 0
    head_reached: asyncio.Event = field(default_factory=asyncio.Event)
    errors: int = 0
    last_error: str | None = None
    failing_since: int | None = None
    dead_streak: int = 0
    dead: int = 0
    waiting: int = 0
    retrying: int = 0

    def take(self, stored: StoredConsumer) -> None:
        """Start from what is stored; failures that could not be written down since the last progress stay counted."""
        if self.committed != stored.checkpoint.position or stored.errors >= self.errors:
            self.errors = stored.errors
            self.failing_since = stored.failing_since
            self.last_error = stored.last_error or self.last_error
        self.handled = self.committed = stored.checkpoint.position
        self.dead_streak = stored.dead_streak
        self.count(stored)

    def count(self, stored: StoredConsumer) -> None:
        """Take note of what is in the dead event queue."""
        self.dead, self.waiting, self.retrying = stored.dead, stored.waiting, stored.retrying

    def failed(self, error: BaseException) -> None:
        """Count a failure that is followed by another attempt."""
        self.errors += 1
        self.last_error = summary_of(error)
        if self.failing_since is None:
            self.failing_since = now_micros()

    def died(self, error: BaseException) -> None:
        """Take note that an event goes to the dead event queue for its own failure."""
        self.dead_streak += 1
        self.last_error = summary_of(error)

    def advanced(self, committed: int) -> None:
        """Take note of a checkpoint."""
        self.committed = committed
        self.errors = 0
        self.failing_since = None

    def status(self, consumer: ConsumerId, role: Role, head: int) -> ConsumerStatus:
        """Return the standing at this moment."""
        return ConsumerStatus(
            id=consumer,
            role=role,
            state=self.state,
            position=self.committed,
            head=head,
            lag_events=max(0, head - self.handled),
            head_reached=self.head_reached.is_set(),
            errors=self.errors,
            last_error=self.last_error,
            failing_since=None if self.failing_since is None else from_micros(self.failing_since),
            dead=self.dead,
            waiting=self.waiting,
            retrying=self.retrying,
        )
