"""Tenure: the work of a consumer from the grant of its lease to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from time import monotonic

from sqlalchemy.exc import DBAPIError

from evento.consumers.dead_events import dead_event, summary_of, waiting_event
from evento.consumers.delivery import Delivery
from evento.consumers.failures import Backoff, UndecodableEvent, is_transient
from evento.consumers.head import HeadWatch
from evento.consumers.notices import Notices
from evento.consumers.port import ConsumerId, ConsumerLease, ConsumerStateStore
from evento.consumers.progress import Progress
from evento.consumers.retries import Retries
from evento.consumers.settings import ConsumerSettings
from evento.consumers.signals import Signals, Waiters
from evento.consumers.status import ConsumerState, Standing
from evento.errors import Overloaded, StoreUnavailable
from evento.messages import EventRecord
from evento.state_store import Page, StateStore

__all__ = ["Tenure"]

logger = logging.getLogger("evento.consumers")

FETCH_TIMEOUT = 60.0
SLICE = 0.005
"""Seconds of handling after which other tasks get their turn."""
IDLE = 60.0
REPORT_INTERVAL = 10.0


class Tenure:
    """Fetches, handles and commits, in order, until the consumer is stopped or the lease is lost.

    :param held: keys with events in the dead event queue; the later events of these keys are parked behind them.
    """

    def __init__(
        self,
        lease: ConsumerLease,
        delivery: Delivery,
        *,
        held: frozenset[str],
        state_store: StateStore,
        consumer_store: ConsumerStateStore,
        watch: HeadWatch,
        standing: Standing,
        signals: Signals,
        waiters: Waiters,
        settings: ConsumerSettings,
    ) -> None:
        self._lease = lease
        self._consumer: ConsumerId = lease.consumer
        self._delivery = delivery
        self._held = set(held)
        self._state_store = state_store
        self._consumer_store = consumer_store
        self._watch = watch
        self._standing = standing
        self._signals = signals
        self._notices = Notices(self._consumer, delivery.role, standing=standing, signals=signals)
        self._settings = settings
        self._progress = Progress(
            consumer_store, lease, standing=standing, waiters=waiters, interval=settings.checkpoint_interval
        )
        self._retries = Retries(
            lease,
            delivery,
            self._progress,
            attempt=self._attempt,
            state_store=state_store,
            consumer_store=consumer_store,
            signals=signals,
            standing=standing,
        )
        self._careful_until = 0
        self._report_at = monotonic() + REPORT_INTERVAL

    async def run(self) -> None:
        """Work until the consumer is stopped.

        :raises LeaseLost: another owner works for the consumer now.
        :raises StoreUnavailable: the consumer state store cannot be used; what is not committed comes again.
        """
        self._standing.state = ConsumerState.RUNNING
        try:
            async with aclosing(self._parked()) as parked:
                await self._delivery.begin(parked, self._progress)
            while not self._signals.stopping:
                if self._retries.due(monotonic()):
                    await self._retry()
                elif self._is_paused:
                    await self._rest()
                else:
                    await self._work()
            await self._progress.commit()
        finally:
            await self._progress.rollback()

    async def _work(self) -> None:
        """Handle one page; at the head, wait for more."""
        progress = self._progress
        before = progress.position
        page = await self._fetch()
        if page is None or not await self._handle(page.events):
            return
        progress.scanned(page.scanned_to)
        self._watch.seen(page.head)
        if page.scanned_to >= page.head:
            self._notices.head_reached()
            await self._wait_for_more()
        elif progress.position == before:
            await self._signals.rest(1.0)  # a store that neither finds nor scans must not make this a busy loop
        else:
            self._report()

    async def _fetch(self) -> Page | None:
        """Return the next page; None when the consumer is to stop."""
        backoff = Backoff()
        while True:
            try:
                async with asyncio.timeout(FETCH_TIMEOUT):
                    page = await self._state_store.fetch(
                        self._progress.position,
                        contexts=(self._consumer.context,),
                        names=self._delivery.names,
                        limit=self._settings.fetch_size,
                    )
                self._standing.state = ConsumerState.RUNNING
                return page
            except (StoreUnavailable, Overloaded, ConnectionError, TimeoutError) as error:
                delay = backoff.next()
                self._notices.cannot_read(error, delay)
                await self._progress.commit()
                await self._failing(error)
                if await self._signals.doze(delay):
                    return None

    async def _wait_for_more(self) -> None:
        progress = self._progress
        if progress.in_transaction and not await self._checkpoint():
            return  # an open transaction never waits
        while not self._signals.stopping and self._watch.head <= progress.position:
            now = monotonic()
            if self._is_paused or self._retries.due(now):
                return
            if progress.is_due(now):
                await progress.commit()
            else:
                await self._signals.rest(max(0.0, min(progress.due_in(), self._retries.due_in(now), IDLE)))

    # Handling ----------------------------------------------------------------------------------------------------

    async def _handle(self, events: Sequence[EventRecord]) -> bool:
        """Handle events in order; False when the work has to go back, to stop or to fetch again."""
        progress, signals, held = self._progress, self._signals, self._held
        yield_at = monotonic() + SLICE
        for event in events:
            if signals.stopping or signals.paused:
                return False
            if held and (key := self._delivery.key_of(event)) in held:
                progress.park(waiting_event(event, key))
            else:
                error = await self._attempt(event, 1)
                if error is None:
                    self._standing.dead_streak = 0
                elif not await self._recover(event, error):
                    return False
            now = monotonic()
            commit = progress.passed(event.position, now)
            # Whatever an event was passed by: what is not committed would be undone with the next one that fails.
            if (commit or event.position <= self._careful_until) and not await self._checkpoint():
                return False
            if now >= yield_at:
                if self._retries.due(now):
                    return False
                await asyncio.sleep(0)
                yield_at = monotonic() + SLICE
        return True

    async def _attempt(self, event: EventRecord, attempt: int) -> BaseException | None:
        """Run the handler once; return what it has raised."""
        progress = self._progress
        try:
            await self._delivery.deliver(event, progress, attempt)
            if not progress.in_transaction:
                return None
            progress.check_open()
        except Exception as error:
            return error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return error  # the handler itself was not cancelled: something that it awaited was
        if progress.position < event.position <= self._careful_until:  # retries commit by themselves
            progress.passed(event.position, monotonic())
            try:
                await progress.commit()
            except DBAPIError as error:  # such as a constraint that the database checks at the end
                await progress.rollback()
                return error
        return None

    async def _recover(self, event: EventRecord, error: BaseException) -> bool:
        """Retry an event that has failed, until it is handled or parked; False when the work has to go back."""
        if self._progress.in_transaction and not await self._undo(event):
            return False
        handler = self._delivery.handler_of(event)
        retries = Backoff(handler.retry_delay.total_seconds(), jitter=0)
        outages = Backoff(handler.retry_delay.total_seconds())
        attempts, failures = 1, 0
        while True:
            transient = is_transient(error)
            failures += not transient
            if isinstance(error, UndecodableEvent) or failures > handler.retry >= 0:
                await self._park(event, error, attempts)
                return self._standing.dead_streak < self._settings.max_dead_streak
            delay = outages.next() if transient else retries.next()
            self._notices.failed(event, handler, error, attempts=attempts, delay=delay)
            await self._progress.commit()
            await self._failing(error)
            if await self._signals.back_off(delay):
                return False
            attempts += 1
            outcome = await self._attempt(event, attempts)
            if outcome is None:
                self._standing.state = ConsumerState.RUNNING
                self._standing.dead_streak = 0
                return True
            error = outcome
            if self._progress.in_transaction:
                await self._undo(event)

    async def _undo(self, event: EventRecord) -> bool:
        """Roll the failed event's transaction back; False when others were in it, which have to be handled again."""
        alone = self._progress.is_clean
        await self._progress.rollback()
        # From here to behind the event, each has a transaction of its own: only the one that fails is given up.
        self._careful_until = event.position
        return alone

    async def _checkpoint(self) -> bool:
        """Commit; False when the database refused the transaction, whose events have to be handled one by one."""
        try:
            await self._progress.commit()
        except DBAPIError:
            if not self._progress.in_transaction:
                raise
            self._careful_until = self._progress.position
            await self._progress.rollback()
            return False
        return True

    # Dead events -------------------------------------------------------------------------------------------------

    async def _park(self, event: EventRecord, error: BaseException, attempts: int) -> None:
        key = self._delivery.key_of(event)
        self._standing.died(error)
        self._progress.park(dead_event(event, key, error, attempts))
        self._progress.passed(event.position, monotonic())
        await self._progress.commit()
        self._standing.state = ConsumerState.RUNNING
        if key is not None and key not in self._held:
            self._held.add(key)
            await self._delivery.hold(key, self._progress)
        self._notices.parked(event, key, error, attempts=attempts)

    async def _retry(self) -> None:
        """Handle some dead events again, between events of the stream."""
        if not await self._checkpoint():  # what is parked must be in the queue before one of its key is handled
            return
        await self._retries.turn()
        self._held = set(await self._consumer_store.dead_keys(self._consumer))
        self._delivery.release(self._held)
        stored = await self._consumer_store.load(self._consumer)
        if stored is not None:
            self._standing.count(stored)
        self._retries.turned()

    async def _parked(self) -> AsyncGenerator[tuple[str, EventRecord | None], None]:
        """Yield the events of the dead event queue behind their keys, in order; None for one that is gone."""
        after = 0
        while events := await self._consumer_store.dead_events(self._consumer, after=after):
            for event in events:
                if event.key is not None:
                    known = event.event_name in self._delivery.names
                    yield event.key, await self._state_store.event(event.position) if known else None
            after = events[-1].position

    @property
    def _is_paused(self) -> bool:
        return self._signals.paused or self._standing.dead_streak >= self._settings.max_dead_streak

    async def _rest(self) -> None:
        """Wait while the consumer is paused: until it is resumed, or dead events are to be retried."""
        await self._progress.commit()
        if self._standing.state is not ConsumerState.PAUSED:
            self._standing.state = ConsumerState.PAUSED
            self._notices.paused(self._progress.position)
        while self._is_paused and not self._signals.stopping:
            now = monotonic()
            if self._retries.due(now):
                return
            await self._signals.rest(min(self._retries.due_in(now), IDLE))

    async def _failing(self, error: BaseException) -> None:
        self._standing.state = ConsumerState.RETRYING
        self._standing.failed(error)
        try:
            await self._consumer_store.record_error(self._lease, summary_of(error))
        except StoreUnavailable as problem:
            self._notices.cannot_note(problem)

    # Reports -----------------------------------------------------------------------------------------------------

    def _report(self) -> None:
        if monotonic() >= self._report_at:
            self._report_at = monotonic() + REPORT_INTERVAL
            logger.info("%s is at position %d of %d", self._consumer, self._progress.position, self._watch.head)
