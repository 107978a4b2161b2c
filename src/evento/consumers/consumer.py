"""Consumer: one component reading the events of one context pattern."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from dataclasses import replace
from typing import Any

from evento.components import Role
from evento.consumers.administration import lag_seconds
from evento.consumers.delivery import Delivery
from evento.consumers.failures import Backoff
from evento.consumers.head import HeadWatch
from evento.consumers.lease_keeper import LeaseKeeper
from evento.consumers.observation import Observation
from evento.consumers.observers import ObserverDelivery
from evento.consumers.port import Checkpoint, ConsumerId, ConsumerLease, ConsumerStateStore, Directions, StoredConsumer
from evento.consumers.settings import ConsumerSettings
from evento.consumers.signals import Signals, Waiters, wait_event
from evento.consumers.status import ConsumerState, ConsumerStatus, Standing
from evento.consumers.tenure import Tenure
from evento.errors import LeaseLost, PayloadError, ReadModelBehind, Stopped, StoreMismatch, StoreUnavailable
from evento.state_store import StateStore

__all__ = ["Consumer"]

logger = logging.getLogger("evento.consumers")

CANCEL_TIMEOUT = 5.0
LOOK_TIMEOUT = 1.0
WAIT = 5.0
"""Seconds after which one who waits makes sure that it still waits for the right thing."""
STANDBY_LOOK = 0.05
"""Seconds between two looks at another replica's checkpoint while somebody waits for it."""


class Consumer:
    """Keeps one consumer at work: takes its lease, works while it holds it, and starts again after any failure.

    An async context manager; the stores and the :class:`HeadWatch` must be open for as long as it is.

    :param owner: names this process to the other replicas; different in each run.
    :param from_head: a consumer that is not known yet starts at the head instead of at the first event.
    :param signals: what its waits end with; the default waits in real time.
    """

    def __init__(
        self,
        consumer: ConsumerId,
        role: Role,
        delivery: Delivery | ObserverDelivery,
        *,
        owner: str,
        state_store: StateStore,
        consumer_store: ConsumerStateStore,
        watch: HeadWatch,
        standing: Standing,
        settings: ConsumerSettings,
        from_head: bool = False,
        signals: Signals | None = None,
    ) -> None:
        self.id = consumer
        self.role = role
        self._delivery = delivery
        self._owner = owner
        self._state_store = state_store
        self._consumer_store = consumer_store
        self._watch = watch
        self._standing = standing
        self._settings = settings
        self._from_head = from_head
        self._signals = Signals() if signals is None else signals
        self._waiters = Waiters()
        self._revision = 0
        self._task: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._holds_lease = False
        watch.listen(self._signals.wake)

    # Lifecycle ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Consumer:
        """Register and start."""
        await self.register()
        self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop."""
        await self.stop()

    async def register(self) -> StoredConsumer:
        """Store the initial position of a consumer that is not known yet; check the checkpoint of one that is.

        :raises StoreMismatch: the checkpoint does not belong to this event store.
        """
        head = await self._state_store.head()
        initial = Checkpoint(
            position=head if self._from_head else 0,
            store_id=self._state_store.store_id,
            epoch=self._state_store.epoch,
        )
        stored = await self._consumer_store.register(self.id, initial)
        if stored.checkpoint.position > head:  # another replica may have come further since
            head = await self._state_store.head()
        self._check(stored.checkpoint, head)
        return stored

    def start(self) -> None:
        """Start working, in a task of its own."""
        self._task = asyncio.create_task(self._run(), name=f"evento-consumer {self.id}")

    async def stop(self) -> None:
        """End all waits, let the running handler end, commit, and give the lease back.

        A handler that does not end within the stop timeout is cancelled, and nothing more is committed: its event, and
        those behind the last checkpoint, come again after the next start.
        """
        self._signals.stop()
        task, self._task = self._task, None
        if task is not None:
            try:
                await asyncio.wait({task}, timeout=self._settings.stop_timeout)
            finally:
                await self._end(task)
        if self._looking is not None:
            await asyncio.wait({self._looking}, timeout=LOOK_TIMEOUT)
            self._looking.cancel()
            await asyncio.wait({self._looking}, timeout=LOOK_TIMEOUT)
        self._standing.state = ConsumerState.STOPPED
        self._waiters.release()

    async def _end(self, task: asyncio.Task[None]) -> None:
        if not task.done():
            logger.warning("%s: the running handler does not end: it is cancelled", self.id)
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_TIMEOUT)
        if not task.done():
            logger.error("%s: the running handler ignores that it is cancelled, and is left behind", self.id)

    # Questions ---------------------------------------------------------------------------------------------------

    @property
    def committed(self) -> int:
        """The committed position; on a standby, as of its last look."""
        return self._standing.committed

    @property
    def status(self) -> ConsumerStatus:
        """Where the consumer stands."""
        return self._standing.status(self.id, self.role, self._watch.head)

    async def status_now(self) -> ConsumerStatus:
        """Return where the consumer stands, with its lag in seconds; a standby looks at the store first.

        :raises StoreUnavailable: a store cannot answer.
        """
        if self._standing.state is ConsumerState.STANDBY:
            await self._look()
        elif (stored := await self._consumer_store.load(self.id)) is not None:
            self._standing.count(stored)
        status, lag = self.status, 0.0
        if status.lag_events:
            lag = await lag_seconds(self._state_store, self.id, self._standing.handled, self._delivery.names)
        return replace(status, lag_seconds=lag)

    @property
    def is_retrying(self) -> bool:
        """Whether dead events are to be handled again now; on a standby, as of its last look."""
        asked = self._signals.retry_wanted and self._standing.state is not ConsumerState.STANDBY
        return asked or self._standing.retrying > 0

    def direct(self, directions: Directions) -> None:
        """Follow what operators ask for, where it is news."""
        if directions.revision <= self._revision:
            return
        self._revision = directions.revision
        if not directions.paused and self._standing.dead_streak >= self._settings.max_dead_streak:
            self._standing.dead_streak = directions.dead_streak
        self._signals.pause(directions.paused)
        self._signals.retry()
        self._standing.retrying = self._standing.retrying or 1  # until they are counted

    async def wait_committed(self, position: int, deadline: float) -> None:
        """Return when ``position`` is committed; dead and waiting events count as passed.

        What is handled already is committed at once for the one who waits, where this replica is the active one.

        :param deadline: in the event loop's time.
        :raises ReadModelBehind: not in time, or the consumer was stopped.
        """
        loop = asyncio.get_running_loop()
        while self.committed < position:
            remaining = deadline - loop.time()
            if remaining <= 0 or self._signals.stopping:
                raise ReadModelBehind(
                    f"{self.id} is at position {self.committed}, not yet at {position}",
                    consumer=str(self.id),
                    position=self.committed,
                    wanted=position,
                )
            if self._standing.state is ConsumerState.STANDBY:
                await self._look_together(remaining)
                await self._signals.doze(min(max(deadline - loop.time(), 0.0), STANDBY_LOOK))
            else:
                self._signals.wake()
                await self._waiters.wait(position, min(remaining, WAIT))

    async def wait_head_reached(self) -> None:
        """Return when the consumer has caught up once since it was started, here or in another replica.

        :raises ReadModelBehind: it has paused itself, so that it will not catch up.
        :raises Stopped: it was stopped.
        """
        while not await wait_event(self._standing.head_reached, 0.5):
            if self._signals.stopping:
                raise Stopped(f"{self.id} was stopped before it reached the head")
            if self._standing.state is ConsumerState.PAUSED:
                why = "is paused" if self._signals.paused else "has paused itself"
                error = f" (last error: {self._standing.last_error})" if self._standing.last_error else ""
                raise ReadModelBehind(
                    f"{self.id} {why} at position {self.committed}{error} and will not reach the head until it is "
                    f"resumed: evento consumers resume {self.id.component}"
                )

    # Work --------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Take the lease and work, again and again, whatever happens."""
        backoff = Backoff()
        while not self._signals.stopping:
            committed = self.committed
            try:
                await self._take_turn()
                backoff.reset()
                continue
            except LeaseLost as error:
                self._standing.state = ConsumerState.STANDBY
                self._waiters.release()  # to look at the other replica's checkpoint from now on
                logger.warning("%s: the lease is lost: %s", self.id, error)
            except StoreUnavailable as error:
                self._failed(error)
                logger.warning("%s cannot go on: %s", self.id, error)
            except PayloadError as error:
                self._failed(error)
                self._standing.state = ConsumerState.PAUSED
                logger.error("%s cannot go on until what is stored about it is mended: %s", self.id, error)
            except Exception as error:
                self._failed(error)
                logger.exception("%s has crashed and will be started again", self.id)
            if self.committed > committed:
                backoff.reset()
            await self._signals.doze(backoff.next())

    def _failed(self, error: Exception) -> None:
        self._standing.state = ConsumerState.RETRYING
        self._standing.failed(error)

    async def _take_turn(self) -> None:
        """Work for as long as the lease is held; without it, look and wait."""
        settings, loop = self._settings, asyncio.get_running_loop()
        asked = loop.time()
        lease = await self._consumer_store.acquire(
            self.id, owner=self._owner, ttl=settings.lease_ttl, take_over=settings.take_over
        )
        if lease is None:
            self._standing.state = ConsumerState.STANDBY
            await self._look()
            await self._signals.doze(settings.lease_ttl / 5 * random.uniform(0.8, 1.2))  # noqa: S311 - not a secret
            return
        self._holds_lease = True
        try:
            self._take(await self.register())
            if self._standing.dead_streak >= settings.max_dead_streak:
                self._standing.dead_streak = settings.max_dead_streak - 1  # a restart tries one more event
            await self._hold(lease, await self._tenure(lease), asked + settings.lease_ttl)
        finally:
            self._holds_lease = False
        with suppress(StoreUnavailable):
            await self._consumer_store.release(lease)

    async def _tenure(self, lease: ConsumerLease) -> Tenure | Observation:
        common: dict[str, Any] = {
            "state_store": self._state_store,
            "consumer_store": self._consumer_store,
            "watch": self._watch,
            "standing": self._standing,
            "signals": self._signals,
            "waiters": self._waiters,
            "settings": self._settings,
        }
        held = await self._consumer_store.dead_keys(self.id)
        if isinstance(self._delivery, ObserverDelivery):
            finished = await self._consumer_store.finished(self.id)
            return Observation(lease, self._delivery, finished=finished, held=held, **common)
        return Tenure(lease, self._delivery, held=held, **common)

    async def _look(self) -> None:
        """See how far another replica has come."""
        head = self._watch.head
        stored = await self.register()
        if self._holds_lease:
            return  # taken meanwhile: what was seen before is older than what the work stands on
        self._take(stored)
        if self.committed >= head:
            self._standing.head_reached.set()

    async def _look_together(self, timeout: float) -> None:
        """Look, with all others who want to at this moment, at most for ``timeout`` seconds."""
        looking = self._looking
        if looking is None or looking.done():
            looking = self._looking = asyncio.create_task(self._look(), name=f"evento-look {self.id}")
            looking.add_done_callback(_retrieve)
        await asyncio.wait({looking}, timeout=timeout)
        if looking.done() and not looking.cancelled():
            with suppress(StoreUnavailable):
                looking.result()

    def _take(self, stored: StoredConsumer) -> None:
        self._standing.take(stored)
        self.direct(stored.directions)
        self._waiters.passed(self.committed)

    async def _hold(self, lease: ConsumerLease, tenure: Tenure | Observation, valid_until: float) -> None:
        """Run the tenure while the lease is renewed; end it at once when the lease is lost."""
        over = asyncio.Event()
        work = asyncio.create_task(tenure.run(), name=f"evento-tenure {self.id}")
        keeper = asyncio.create_task(
            LeaseKeeper(
                self._consumer_store,
                lease,
                ttl=self._settings.lease_ttl,
                valid_until=valid_until,
                alone=self._settings.take_over,
            ).run(over),
            name=f"evento-lease {self.id}",
        )
        try:
            await asyncio.wait({work, keeper}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.set()
            if not work.done():
                work.cancel()
                await asyncio.wait({work}, timeout=self._settings.stop_timeout)
            await asyncio.wait({keeper})
        if work.done() and not work.cancelled():
            work.result()
            return
        raise keeper.result() or LeaseLost(
            f"the work for {self.id} was cancelled", consumer=str(self.id), token=lease.token
        )

    def _check(self, checkpoint: Checkpoint, head: int) -> None:
        store = self._state_store
        if (checkpoint.store_id, checkpoint.epoch) != (store.store_id, store.epoch):
            problem = "has read another event store" if checkpoint.store_id != store.store_id else "has read a history"
            problem += f" (store {checkpoint.store_id}, epoch {checkpoint.epoch}) than that of the bundle"
            problem += f" (store {store.store_id}, epoch {store.epoch})"
        elif checkpoint.position > head:
            problem = f"has read up to position {checkpoint.position}, but the event store ends at {head}"
        else:
            return
        raise StoreMismatch(
            f"{self.id} {problem}: the event store was replaced, or restored from a backup. Restore the consumer state "
            "that belongs to it; or remove the consumer state and empty the read models, so that they are built anew; "
            "or raise the component's version= to build a new one beside the old",
            consumer=str(self.id),
            position=checkpoint.position,
            head=head,
            store_id=checkpoint.store_id,
            epoch=checkpoint.epoch,
        )


def _retrieve(task: asyncio.Task[None]) -> None:
    """Take the error of a task that nobody may be waiting for any more."""
    if not task.cancelled():
        task.exception()
