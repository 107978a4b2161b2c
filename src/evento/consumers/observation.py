"""Observation: the work of an observer, or of a consumer with lanes, from the grant of its lease to its end."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable
from time import monotonic

from evento.consumers.dead_events import dead_event, summary_of, waiting_event
from evento.consumers.failures import MIN_DELAY, Backoff, UndecodableEvent, is_transient
from evento.consumers.head import HeadWatch
from evento.consumers.lanes import Lane, Lanes
from evento.consumers.notices import Notices
from evento.consumers.observers import ObserverDelivery
from evento.consumers.port import ConsumerId, ConsumerLease, ConsumerStateStore, DeadEvent
from evento.consumers.progress import SCAN_INTERVAL
from evento.consumers.retries import Retries
from evento.consumers.settings import ConsumerSettings
from evento.consumers.signals import Signals, Waiters
from evento.consumers.status import ConsumerState, Standing
from evento.consumers.window import Window
from evento.errors import Overloaded, StoreUnavailable
from evento.messages import EventRecord
from evento.state_store import Page, StateStore

__all__ = ["Observation"]

logger = logging.getLogger("evento.consumers")

FETCH_TIMEOUT = 60.0
IDLE = 60.0
CANCEL_TIMEOUT = 3.0
PAUSED_LOOK = 5.0
PAUSED_LANE_LOOK = 0.2


class Observation:
    """Fetches, handles side by side and commits, until the observer is stopped or the lease is lost.

    One task for each event that is begun, which ends when the event is handled or dead. A handler that runs holds one
    of a fixed number of slots; an event that waits for its next attempt holds none. The loop begins events while there
    are slots and the window is not full, and is the only one that commits.

    With lanes, a task first waits for its turn in the lane of its event's key; there is a slot for each lane, and an
    event keeps its lane until it is handled or dead. So events of a key keep their order, behind a dead one too.

    :param finished: positions beyond the checkpoint whose events were handled before.
    :param held: keys with events in the dead event queue; the later events of these keys are parked behind them.
    """

    def __init__(
        self,
        lease: ConsumerLease,
        delivery: ObserverDelivery,
        *,
        finished: Iterable[int],
        held: Iterable[str] = (),
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
        self._state_store = state_store
        self._consumer_store = consumer_store
        self._watch = watch
        self._standing = standing
        self._signals = signals
        self._notices = Notices(self._consumer, delivery.role, standing=standing, signals=signals)
        self._waiters = waiters
        self._settings = settings
        self._window = Window(standing.committed, finished)
        self._lanes = Lanes(delivery.lanes) if delivery.lanes else None
        self._held = set(held)
        self._slots = asyncio.Semaphore(delivery.lanes or settings.observer_concurrency)
        self._first_head: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._crash: BaseException | None = None
        self._parked: list[DeadEvent] = []
        self._backing_off = 0
        self._said_why = False
        self._gave_up = False
        self._resolved: list[int] = []
        self._retries = Retries(
            lease,
            delivery,
            self,
            attempt=self._run,
            state_store=state_store,
            consumer_store=consumer_store,
            signals=signals,
            standing=standing,
        )
        self._due = math.inf
        self._not_before = 0.0
        self._outage = Backoff()

    async def run(self) -> None:
        """Work until the observer is stopped, then wait for the running handlers.

        :raises LeaseLost: another owner works for the consumer now.
        :raises StoreUnavailable: the last checkpoint could not be written; what it would have held comes again.
        """
        try:
            self._settle()
            while not self._signals.stopping:
                if self._retries.due(monotonic()):
                    await self._retry()
                elif self._is_paused:
                    await self._pause()
                else:
                    await self._work()
            await self._drain()
            await self._commit()
        finally:
            await self._abandon()

    # Beginning events --------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Begin the events of one page; at the head, wait for more."""
        self._said_why = False
        before = self._window.scanned
        page = await self._fetch()
        if page is None:
            return
        for event in page.events:
            if not await self._room():
                return
            if self._window.begin(event.position):
                await self._begin(event)
        self._window.scan(page.scanned_to)
        self._standing.handled = self._window.scanned
        self._due = min(self._due, monotonic() + SCAN_INTERVAL)
        self._watch.seen(page.head)
        if page.scanned_to >= page.head:
            self._look_for_head(page.head)
            while self._watch.head <= self._window.scanned and self._may_begin:
                await self._rest()
                self._look_for_head(page.head)
        elif self._window.scanned == before:
            await self._signals.rest(1.0)  # a store that neither finds nor scans must not make this a busy loop

    async def _fetch(self) -> Page | None:
        """Return the next page; None when the observer is to stop."""
        backoff = Backoff()
        while True:
            try:
                async with asyncio.timeout(FETCH_TIMEOUT):
                    page = await self._state_store.fetch(
                        self._window.scanned,
                        contexts=(self._consumer.context,),
                        names=self._delivery.names,
                        limit=self._settings.fetch_size,
                    )
                self._settle()
                return page
            except (StoreUnavailable, Overloaded, ConnectionError, TimeoutError) as error:
                delay = backoff.next()
                self._notices.cannot_read(error, delay)
                await self._failing(error)
                await self._commit_if_due()
                if await self._signals.doze(delay):
                    return None

    async def _room(self) -> bool:
        """Wait until one more event may be begun; False when none may now."""
        window, settings = self._window, self._settings
        while self._may_begin:
            if await self._commit_if_due():
                continue
            full = window.remembered >= settings.observer_window or window.unfinished >= settings.observer_unfinished
            if window.uncommitted >= settings.observer_window:
                full = True
                self._due = 0.0
            if not full and (self._lanes is not None or not self._slots.locked()):
                return True
            await self._rest()
        return False

    async def _rest(self) -> None:
        """Commit what is due, or wait until something happens."""
        if not await self._commit_if_due():
            now = monotonic()
            due_in = min(max(self._due, self._not_before) - now, self._retries.due_in(now))
            await self._signals.rest(max(0.0, min(due_in, IDLE)))
        if self._crash is not None:
            raise self._crash

    async def _pause(self) -> None:
        self._standing.state = ConsumerState.PAUSED
        if not self._said_why:
            self._said_why = True
            self._notices.paused(self._window.watermark)
        # A success of those that are begun ends it too, where too many had failed.
        while self._is_paused and not self._signals.stopping and not self._retries.due(monotonic()):
            await self._rest()

    @property
    def _is_paused(self) -> bool:
        return self._signals.paused or self._standing.dead_streak >= self._settings.max_dead_streak

    @property
    def _may_begin(self) -> bool:
        return not self._signals.stopping and not self._is_paused and not self._retries.due(monotonic())

    # Dead events -------------------------------------------------------------------------------------------------

    async def _retry(self) -> None:
        """Handle some dead events again, one after another; those that are begun go on beside them."""
        try:
            await self._commit()  # what is parked must be in the queue before one of its key is handled
            await self._retries.turn()
            dead_keys = await self._consumer_store.dead_keys(self._consumer)
            stored = await self._consumer_store.load(self._consumer)
        except StoreUnavailable as error:
            delay = self._outage.next()
            self._retries.postpone(delay)
            self._due = self._not_before = monotonic() + delay
            logger.warning("%s cannot retry dead events now: %s", self._consumer, error)
            return
        if stored is not None:
            self._standing.count(stored)
        self._retries.turned()
        # What was parked during the turn is not in the queue yet: its key stays held, until a turn has handled it.
        unsaved = {event.key for event in self._parked if event.key is not None}
        self._held = {*dead_keys, *unsaved}
        if not unsaved <= dead_keys:
            self._signals.retry()

    def resolve(self, position: int) -> None:
        """Take note that a dead event is handled."""
        self._resolved.append(position)

    async def commit(self) -> None:
        """Take the handled dead events out of the queue; the checkpoint stays where it is."""
        await self._consumer_store.commit(
            self._lease, self._standing.committed, resolved=self._resolved, dead_streak=None
        )
        self._resolved = []

    async def rollback(self) -> None:
        """Forget what was to leave the queue: handlers of observers write elsewhere."""
        self._resolved = []

    # Handling ----------------------------------------------------------------------------------------------------

    async def _begin(self, event: EventRecord) -> None:
        if self._lanes is None:
            await self._slots.acquire()  # there is one: _room() has seen it, and nobody ran since
            work = self._handle(event)
        else:
            work = self._handle_in(self._lanes.lane_of(self._delivery.key_of(event)), event)
        task = asyncio.create_task(work, name=f"evento-event {self._consumer} {event.position}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._crash = task.exception()
        self._signals.wake()

    async def _handle_in(self, lane: Lane, event: EventRecord) -> None:
        """Handle an event when its turn in its lane has come, or park it behind a dead one of its key."""
        async with lane:
            if not await self._turn_has_come():
                return
            key = self._delivery.key_of(event)
            if key is not None and key in self._held:
                self._parked.append(waiting_event(event, key))
                self._finish(event)
                return
            await self._slots.acquire()
            try:
                await self._handle(event)
            except Exception as error:
                self._crash = error  # before the next one has its turn
                raise

    async def _turn_has_come(self) -> bool:
        """Wait while the consumer is paused; False when the event is to be left unfinished, to come again."""
        while not self._signals.stopping and self._crash is None:
            if not self._is_paused:
                return True
            await self._signals.doze(PAUSED_LANE_LOOK)
        return False

    async def _handle(self, event: EventRecord) -> None:
        """Handle an event, which has a slot, until it is handled or dead; a stop leaves it unfinished."""
        handler = self._delivery.handler_of(event)
        retries = Backoff(handler.retry_delay.total_seconds(), jitter=0)
        outages = Backoff(handler.retry_delay.total_seconds())
        attempts, failures = 0, 0
        while True:
            attempts += 1
            error = await self._attempt(event, attempts)
            if error is None:
                self._standing.dead_streak = 0
                break
            transient = is_transient(error)
            failures += not transient
            if isinstance(error, UndecodableEvent) or failures > handler.retry >= 0:
                self._park(event, error, attempts)
                break
            delay = outages.next() if transient else retries.next()
            self._notices.failed(event, handler, error, attempts=attempts, delay=delay)
            if await self._back_off(error, delay):
                return
        self._finish(event)

    def _finish(self, event: EventRecord) -> None:
        """Take note that an event is handled or parked."""
        self._window.finish(event.position)
        self._due = min(self._due, monotonic() + self._settings.checkpoint_interval)

    async def _attempt(self, event: EventRecord, attempt: int) -> BaseException | None:
        """Run the handler once, give the slot back, and return what the handler has raised."""
        try:
            return await self._run(event, attempt)
        finally:
            self._slots.release()
            self._signals.wake()

    async def _run(self, event: EventRecord, attempt: int) -> BaseException | None:
        try:
            await self._delivery.deliver(event, attempt)
        except Exception as error:
            return error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return error  # the handler itself was not cancelled: something that it awaited was
        return None

    async def _back_off(self, error: BaseException, delay: float) -> bool:
        """Wait for the next attempt and a slot for it; True when the observer is to stop."""
        self._backing_off += 1
        try:
            await self._failing(error)
            while True:
                if await self._signals.doze(delay):
                    return True
                await self._slots.acquire()
                if not self._signals.stopping and not self._is_paused:
                    return False
                self._slots.release()
                delay = PAUSED_LOOK  # what waits for another attempt does not die of what has paused the observer
        finally:
            self._backing_off -= 1
            self._settle()

    def _park(self, event: EventRecord, error: BaseException, attempts: int) -> None:
        self._standing.died(error)
        key = self._delivery.key_of(event)
        self._parked.append(dead_event(event, key, error, attempts))
        if key is not None:
            self._held.add(key)
        self._notices.parked(event, key, error, attempts=attempts)

    async def _failing(self, error: BaseException) -> None:
        self._standing.failed(error)
        self._settle(retrying=True)
        try:
            await self._consumer_store.record_error(self._lease, summary_of(error))
        except StoreUnavailable as problem:
            self._notices.cannot_note(problem)

    def _settle(self, *, retrying: bool = False) -> None:
        """Say what the observer is doing."""
        if self._is_paused:
            self._standing.state = ConsumerState.PAUSED
        else:
            busy = retrying or self._backing_off > 0
            self._standing.state = ConsumerState.RETRYING if busy else ConsumerState.RUNNING

    # Checkpoints -------------------------------------------------------------------------------------------------

    async def _commit_if_due(self) -> bool:
        """Commit when it is time; a store that is unavailable is tried again later, while the handlers go on."""
        now, watermark = monotonic(), self._window.watermark
        wanted = self._waiters.wanted <= watermark and watermark > self._standing.committed
        if now < self._not_before or not (wanted or now >= self._due):
            return False
        try:
            await self._commit()
        except StoreUnavailable as error:
            delay = self._outage.next()
            self._not_before = monotonic() + delay
            self._due = self._not_before
            logger.warning("%s cannot write its checkpoint (again in %.1f s): %s", self._consumer, delay, error)
            self._standing.failed(error)
        return True

    async def _commit(self) -> None:
        """Move the checkpoint to the watermark, and remember what is finished beyond it."""
        window, parked = self._window, tuple(self._parked)
        watermark, unsaved = window.watermark, window.unsaved
        self._due = math.inf
        if watermark == self._standing.committed and not unsaved and not parked:
            return
        finished = {position for position in unsaved if position > watermark}
        too_many = self._standing.dead_streak >= self._settings.max_dead_streak
        # Once that is stored, it is left alone: what fails late must not undo that somebody resumes the consumer.
        streak = None if too_many and self._gave_up else self._standing.dead_streak
        await self._consumer_store.commit(self._lease, watermark, parked=parked, dead_streak=streak, finished=finished)
        self._gave_up = too_many
        self._outage.reset()
        window.saved(watermark, unsaved)
        del self._parked[: len(parked)]
        self._standing.advanced(watermark)
        self._standing.dead += sum(not event.waiting for event in parked)
        self._standing.waiting += sum(event.waiting for event in parked)
        self._waiters.passed(watermark)

    # The end -----------------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Wait for the running handlers; meanwhile what has ended is committed, should the stop be cut short."""
        while self._tasks:
            await asyncio.wait(self._tasks, timeout=max(self._settings.checkpoint_interval, MIN_DELAY))
            await self._commit_if_due()

    async def _abandon(self) -> None:
        """Cancel what still runs: its events come again."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=CANCEL_TIMEOUT)
            if left:
                logger.error(
                    "%s: %d handlers ignore that they are cancelled, and are left behind", self._consumer, len(left)
                )
        self._standing.handled = self._standing.committed

    def _look_for_head(self, head: int) -> None:
        """Take note that the head is reached: with lanes, when all events up to it are handled or parked."""
        if self._first_head is None:
            self._first_head = head
        if self._lanes is not None and self._window.watermark < self._first_head:
            return
        self._notices.head_reached()
