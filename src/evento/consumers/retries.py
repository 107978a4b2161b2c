"""Retries: handling events of the dead event queue again, in turns between the events of the stream."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Protocol

from sqlalchemy.exc import DBAPIError

from evento.components import HandlerDefinition
from evento.consumers.dead_events import message_of, summary_of, traceback_of, type_of
from evento.consumers.failures import Backoff, EventGone, UndecodableEvent, is_transient
from evento.consumers.port import ConsumerLease, ConsumerStateStore, DeadEvent
from evento.consumers.signals import Signals
from evento.consumers.status import Standing
from evento.messages import EventRecord
from evento.state_store import StateStore

__all__ = ["Retries"]

logger = logging.getLogger("evento.consumers")

TURN_EVENTS = 100
TURN_SECONDS = 0.1
"""A turn begins no further event after this time, so that the stream goes on."""

Attempt = Callable[[EventRecord, int], Awaitable[BaseException | None]]


class Handlers(Protocol):
    """What a component handles."""

    @property
    def names(self) -> Sequence[str]:
        """The wire names of the handled events."""
        ...

    def handler_of(self, event: EventRecord) -> HandlerDefinition:
        """Return the handler of an event."""
        ...


class Resolution(Protocol):
    """Where it is written down that an event has left the queue: with what its handler wrote, if that can be."""

    def resolve(self, position: int) -> None:
        """Take note that a dead event is handled."""
        ...

    async def commit(self) -> None:
        """Write it down."""
        ...

    async def rollback(self) -> None:
        """Undo what a failed handler wrote."""
        ...


class _Failing:
    """An event that has failed since it was marked, and is tried again later."""

    def __init__(self, position: int, first_delay: float) -> None:
        self.position = position
        self.attempts = 0
        self.failures = 0
        self.until = 0.0
        self._retries = Backoff(first_delay, jitter=0)
        self._outages = Backoff(first_delay)

    def is_over(self, error: BaseException, retry: int) -> bool:
        """Count a failure; whether it was the last one that the handler allows."""
        transient = is_transient(error)
        self.attempts += 1
        self.failures += not transient
        self.until = monotonic() + (self._outages if transient else self._retries).next()
        return isinstance(error, UndecodableEvent) or (not transient and self.failures > retry >= 0)


class Retries:
    """Works through the events that are to be handled again, in the order of their positions, key by key in order.

    A pass looks at each of them once, in as many bounded turns as it takes; the stream goes on between the turns. An
    event that fails is tried again in a later pass, after the delay that its handler names; its key waits, nothing else
    does. What has failed as often as the handler allows is put back, unmarked, with its error.

    An event leaves the queue in the transaction of its handler, or behind a handler without one: a crash in between
    leaves it in the queue, marked as it was.
    """

    def __init__(
        self,
        lease: ConsumerLease,
        delivery: Handlers,
        progress: Resolution,
        *,
        attempt: Attempt,
        state_store: StateStore,
        consumer_store: ConsumerStateStore,
        signals: Signals,
        standing: Standing,
    ) -> None:
        self._lease = lease
        self._delivery = delivery
        self._progress = progress
        self._attempt = attempt
        self._state_store = state_store
        self._consumer_store = consumer_store
        self._signals = signals
        self._standing = standing
        self._due_at = 0.0 if standing.retrying else math.inf
        self._after = 0
        self._blocked: set[str | int] = set()
        self._failing: dict[str | int, _Failing] = {}
        self._began = 0.0

    def due(self, now: float) -> bool:
        """Whether a turn is due."""
        return now >= self._due_at or self._signals.retry_wanted

    def due_in(self, now: float) -> float:
        """Return the seconds until a turn is due; infinite when there is nothing to retry."""
        return 0.0 if self._signals.retry_wanted else max(0.0, self._due_at - now)

    async def turn(self) -> None:
        """Handle some events again; everything else must be committed.

        :raises LeaseLost: another owner works for the consumer now.
        :raises StoreUnavailable: the consumer state store cannot be used; what is not committed comes again.
        """
        self._began = monotonic()
        if self._signals.retry_wanted:  # something may have changed anywhere in the queue: a pass from the start
            self._signals.retry_wanted = False
            self._standing.retrying = self._standing.retrying or 1  # until they are counted, behind the turn
            self._after = 0
            self._blocked.clear()
        events = await self._consumer_store.retryable(self._lease.consumer, after=self._after, limit=TURN_EVENTS)
        for event in events:
            if self._signals.stopping:
                return
            await self._visit(event)
            self._after = event.position
            if monotonic() >= self._began + TURN_SECONDS:
                return
        if len(events) < TURN_EVENTS:
            self._end_pass()

    def turned(self) -> None:
        """Set when the next turn is due, now that it is known what is left."""
        now = monotonic()
        if self._after:
            self._due_at = now + (now - self._began)  # the stream gets as much time as the turn has taken
        elif self._failing:
            self._due_at = min(failing.until for failing in self._failing.values())
        else:
            self._due_at = math.inf

    def postpone(self, seconds: float) -> None:
        """Let the next turn wait: the consumer state store cannot be used now."""
        self._signals.retry_wanted = False
        self._after = 0  # somebody may have asked meanwhile: a pass from the start
        self._blocked.clear()
        self._due_at = monotonic() + seconds

    def _end_pass(self) -> None:
        # Those that were not met any more are handled or discarded.
        self._failing = {lane: failing for lane, failing in self._failing.items() if lane in self._blocked}
        self._blocked.clear()
        self._after = 0

    async def _visit(self, event: DeadEvent) -> None:
        """Handle an event unless its key is blocked; block the key when it fails."""
        lane = event.position if event.key is None else event.key
        if lane in self._blocked:
            return
        failing = self._failing.get(lane)
        if failing is not None and failing.position != event.position:  # what had failed was discarded
            del self._failing[lane]
        elif failing is not None and monotonic() < failing.until:
            self._blocked.add(lane)
            return
        if await self._handle(lane, event):
            self._failing.pop(lane, None)
        else:
            self._blocked.add(lane)

    async def _handle(self, lane: str | int, event: DeadEvent) -> bool:
        """Handle an event; whether it has left the queue."""
        failing = self._failing.get(lane)
        policy: HandlerDefinition | None = None
        error: BaseException | None
        try:
            record = await self._read(event)
        except Exception as problem:
            error = problem
        else:
            policy = self._delivery.handler_of(record)
            error = await self._try(record, 1 if failing is None else failing.attempts + 1)
        if error is None:
            logger.info(
                "%s: %s at position %d is handled and has left the dead event queue",
                self._lease.consumer, event.event_name, event.position,
            )  # fmt: skip
            return True
        await self._progress.rollback()
        await self._failed(lane, event, policy, error)
        return False

    async def _read(self, event: DeadEvent) -> EventRecord:
        if event.event_name not in self._delivery.names:
            raise EventGone(f"the component has no handler for {event.event_name} any more: discard the event")
        record = await self._state_store.event(event.position)
        if record is None:
            raise EventGone(f"the event store has no event at position {event.position} any more: discard it")
        if record.event_id != event.event_id:
            raise EventGone(
                f"the event at position {event.position} is {record.event_id}, not {event.event_id} which had failed: "
                "the row in the dead event queue was changed from outside: discard it"
            )
        return record

    async def _try(self, record: EventRecord, attempt: int) -> BaseException | None:
        error = await self._attempt(record, attempt)
        if error is not None:
            return error
        self._progress.resolve(record.position)
        try:
            await self._progress.commit()
        except DBAPIError as problem:  # such as a constraint that the database checks at the end
            return problem
        return None

    async def _failed(
        self, lane: str | int, event: DeadEvent, policy: HandlerDefinition | None, error: BaseException
    ) -> None:
        """Try a failed event again later, or put it back."""
        failing = self._failing.get(lane)
        if failing is None:
            delay = 1.0 if policy is None else policy.retry_delay.total_seconds()
            failing = self._failing[lane] = _Failing(event.position, delay)
        if failing.is_over(error, 0 if policy is None else policy.retry):
            del self._failing[lane]
            await self._put_back(event, error, failing.attempts)
            return
        logger.warning(
            "%s: the retry of %s at position %d failed (attempt %d, again in %.2f s): %s",
            self._lease.consumer, event.event_name, event.position, failing.attempts, failing.until - monotonic(),
            summary_of(error),
        )  # fmt: skip

    async def _put_back(self, event: DeadEvent, error: BaseException, attempts: int) -> None:
        self._standing.last_error = summary_of(error)
        dead = replace(
            event,
            error_type=type_of(error),
            error_message=message_of(error),
            traceback=traceback_of(error),
            attempts=event.attempts + attempts,
        )
        await self._consumer_store.put_back(self._lease, dead)
        logger.error(
            "%s: %s at position %d stays in the dead event queue, its retry has failed: %s",
            self._lease.consumer, event.event_name, event.position, summary_of(error),
            exc_info=error,
        )  # fmt: skip
