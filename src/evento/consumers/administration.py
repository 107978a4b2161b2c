"""ConsumerAdministration: what operators see of consumers, and what they can ask of them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from evento.consumers.port import ConsumerId, ConsumerStateStore, DeadEvent, DeadEventFilter, StoredConsumer
from evento.consumers.status import ConsumerState, ConsumerStatus
from evento.errors import NotFound
from evento.messages import from_micros, now_micros
from evento.state_store import StateStore

__all__ = ["ConsumerAdministration", "find_consumer", "lag_seconds", "stored_status"]

logger = logging.getLogger("evento.consumers")

MAX_PAGE = 10_000
DISCARD_BATCH = 500


class ConsumerAdministration:
    """Status of consumers, pause and resume, and their dead event queues.

    A consumer is given by the name of its component, or by its :class:`ConsumerId` where several have that name (see
    :meth:`find`). What is asked for is written down in the consumer state store and done by the process that holds
    the consumer's lease: at once if that is this one, within about a second if it is another one, and after the next
    start if there is none.

    Every method raises :class:`~evento.errors.NotFound` for an unknown consumer, naming those that there are, and
    :class:`~evento.errors.StoreUnavailable` when a store cannot answer.
    """

    def __init__(
        self,
        store: ConsumerStateStore,
        *,
        known: Callable[[], Awaitable[Sequence[ConsumerId]]],
        status: Callable[[ConsumerId], Awaitable[ConsumerStatus]],
        notify: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._known = known
        self._status = status
        self._notify = notify

    # Which ones --------------------------------------------------------------------------------------------------

    async def find(
        self, component: str, *, version: int | None = None, context: str | None = None, bundle: str | None = None
    ) -> ConsumerId:
        """Return the one consumer of a component, where need be of that version, context and bundle.

        :raises NotFound: there is none, or more than one; names those that there are.
        """
        return find_consumer(await self._known(), component, version=version, context=context, bundle=bundle)

    async def _resolve(self, consumer: ConsumerId | str) -> ConsumerId:
        if isinstance(consumer, str):
            return await self.find(consumer)
        known = await self._known()
        if consumer not in known:
            raise _unknown(str(consumer), known)
        return consumer

    # Status ------------------------------------------------------------------------------------------------------

    async def list(self) -> Sequence[ConsumerStatus]:
        """Return where each consumer stands."""
        return [await self._status(consumer) for consumer in await self._known()]

    async def show(self, consumer: ConsumerId | str) -> ConsumerStatus:
        """Return where a consumer stands."""
        return await self._status(await self._resolve(consumer))

    # Pause and resume --------------------------------------------------------------------------------------------

    async def pause(self, consumer: ConsumerId | str) -> None:
        """Let a consumer begin no further event of the stream, until it is resumed; restarts change nothing about it.

        The event that is being handled is brought to its end; one that waits for its next attempt comes again after
        the pause. Retries of dead events are done also while the consumer is paused.
        """
        found = await self._resolve(consumer)
        await self._store.set_paused(found, True)
        logger.info("%s is to pause", found)
        await self._notify()

    async def resume(self, consumer: ConsumerId | str) -> None:
        """Let a consumer go on that was paused, or that has paused itself after too many dead events."""
        found = await self._resolve(consumer)
        await self._store.set_paused(found, False)
        logger.info("%s is to go on", found)
        await self._notify()

    # The dead event queue ----------------------------------------------------------------------------------------

    async def dead(
        self,
        consumer: ConsumerId | str,
        *,
        position: int | None = None,
        key: str | None = None,
        event_name: str | None = None,
        error_type: str | None = None,
        waiting: bool | None = None,
        retry: bool | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> Sequence[DeadEvent]:
        """Return dead events, and those that wait behind them, in the order of their positions.

        All given conditions must hold. The next page is ``after`` the last position of this one.

        :param waiting: True: only events that wait behind a dead one; False: only dead ones.
        :param retry: True: only those that are marked for a retry.
        :param limit: at most 10,000.
        """
        criteria = DeadEventFilter(
            position=position, key=key, event_name=event_name, error_type=error_type, waiting=waiting, retry=retry
        )
        found = await self._resolve(consumer)
        return await self._store.dead_events(found, criteria, after=after, limit=_page(limit))

    async def retry(
        self,
        consumer: ConsumerId | str,
        position: int | None = None,
        *,
        key: str | None = None,
        event_name: str | None = None,
        error_type: str | None = None,
        all: bool = False,
    ) -> int:
        """Let dead events be handled again: the one at a position, those that match, or all; return how many.

        Each is handled in its key's turn, in the order of positions, and then the events that wait behind it. One that
        fails again, as often as its handler's ``retry`` allows, stays in the queue with its new error.
        ``consumers_caught_up()`` waits for the retries.

        :raises NotFound: there is no dead event at the position, or it only waits behind another one.
        :raises ValueError: it does not say which events.
        """
        found, criteria = await self._select(consumer, position, key, event_name, error_type, all)
        count = await self._store.mark(found, criteria, retry=True)
        if not count and position is not None:
            raise await self._no_dead_event(found, position)
        logger.info("%s: %d dead events are to be retried", found, count)
        await self._notify()
        return count

    async def cancel_retry(
        self,
        consumer: ConsumerId | str,
        position: int | None = None,
        *,
        key: str | None = None,
        event_name: str | None = None,
        error_type: str | None = None,
        all: bool = False,
    ) -> int:
        """Take back what :meth:`retry` asked for, where it is not done yet; return how many dead events match."""
        found, criteria = await self._select(consumer, position, key, event_name, error_type, all)
        count = await self._store.mark(found, criteria, retry=False)
        await self._notify()
        return count

    async def discard(
        self,
        consumer: ConsumerId | str,
        position: int | None = None,
        *,
        key: str | None = None,
        event_name: str | None = None,
        error_type: str | None = None,
        waiting: bool = False,
        all: bool = False,
    ) -> int:
        """Give events up for this consumer, for ever: it will never handle them. Return how many.

        The events stay in the event store. Those that wait behind a discarded event are handled now, in order. Each
        discarded event is named in the log.

        :param waiting: discard waiting events that match, instead of dead ones. One at a position goes in any case.
        :raises NotFound: there is no event at the position.
        :raises ValueError: it does not say which events.
        """
        found, criteria = await self._select(
            consumer, position, key, event_name, error_type, all, waiting=None if position is not None else waiting
        )
        count = 0
        while True:
            events = await self._store.discard(found, criteria, limit=DISCARD_BATCH)
            count += len(events)
            for event in events:
                error = f"{event.error_type}: {event.error_message}"[:500] if event.error_type else "it waited"
                logger.warning("%s: %s at position %d is discarded: %s", found, event.event_name, event.position, error)
            if len(events) < DISCARD_BATCH:
                break
        if not count and position is not None:
            raise await self._no_dead_event(found, position)
        await self._notify()
        return count

    async def _select(
        self,
        consumer: ConsumerId | str,
        position: int | None,
        key: str | None,
        event_name: str | None,
        error_type: str | None,
        everything: bool,
        *,
        waiting: bool | None = False,
    ) -> tuple[ConsumerId, DeadEventFilter]:
        conditions = (position, key, event_name, error_type)
        if everything == any(condition is not None for condition in conditions):
            raise ValueError("say which events: a position, key=, event_name= or error_type=; or all=True")
        criteria = DeadEventFilter(
            position=position, key=key, event_name=event_name, error_type=error_type, waiting=waiting
        )
        return await self._resolve(consumer), criteria

    async def _no_dead_event(self, consumer: ConsumerId, position: int) -> NotFound:
        queue = self._store
        for event in await queue.dead_events(consumer, DeadEventFilter(position=position), limit=1):
            ahead = await queue.dead_events(consumer, DeadEventFilter(key=event.key, waiting=False), limit=1)
            behind = f"the dead event at position {ahead[0].position}" if ahead else "an event that is retried now"
            return NotFound(f"the event at position {position} only waits for {behind}")
        return NotFound(f"{consumer} has no dead event at position {position}")


def find_consumer(
    known: Sequence[ConsumerId],
    component: str,
    *,
    version: int | None = None,
    context: str | None = None,
    bundle: str | None = None,
) -> ConsumerId:
    """Return the one of the known consumers that :meth:`ConsumerAdministration.find` is asked for."""
    found = [
        consumer
        for consumer in known
        if consumer.component == component
        and version in (None, consumer.version)
        and context in (None, consumer.context)
        and bundle in (None, consumer.bundle)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        names = "; ".join(map(str, found))
        raise NotFound(
            f"{component} is not one consumer but {len(found)}: {names}: say which version, context or bundle"
        )
    wanted = f"{component} v{version}" if version is not None else component
    wanted += "" if context is None else f" [{context}]"
    raise _unknown(wanted, known)


def _unknown(wanted: str, known: Sequence[ConsumerId]) -> NotFound:
    names = "; ".join(map(str, known)) or "none"
    return NotFound(f"there is no consumer {wanted}; there are: {names}")


def _page(limit: int) -> int:
    if not 0 < limit <= MAX_PAGE:
        raise ValueError(f"limit must be from 1 to {MAX_PAGE:,}, not {limit}")
    return limit


# Statuses --------------------------------------------------------------------------------------------------------


async def lag_seconds(
    store: StateStore, consumer: ConsumerId, position: int, names: Sequence[str] | None = None
) -> float:
    """Return the age of the oldest event behind a position that concerns a consumer; 0 when there is none."""
    page = await store.fetch(position, contexts=(consumer.context,), names=names, limit=1)
    return max(0, now_micros() - page.events[0].timestamp) / 1e6 if page.events else 0.0


def stored_status(
    consumer: ConsumerId, stored: StoredConsumer, *, head: int, max_dead_streak: int = 100
) -> ConsumerStatus:
    """Return where a consumer stands as far as its store tells: somebody works for it while its lease is held."""
    state = ConsumerState.RUNNING if stored.leased else ConsumerState.STOPPED
    if stored.directions.paused or stored.dead_streak >= max_dead_streak:
        state = ConsumerState.PAUSED
    elif stored.leased and stored.errors:
        state = ConsumerState.RETRYING
    position = stored.checkpoint.position
    return ConsumerStatus(
        id=consumer,
        role=None,
        state=state,
        position=position,
        head=head,
        lag_events=max(0, head - position),
        head_reached=position >= head,
        errors=stored.errors,
        last_error=stored.last_error,
        failing_since=None if stored.failing_since is None else from_micros(stored.failing_since),
        dead=stored.dead,
        waiting=stored.waiting,
        retrying=stored.retrying,
    )
