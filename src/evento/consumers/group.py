"""ConsumerGroup: the consumers of one bundle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AsyncExitStack
from datetime import timedelta

from evento.components import ComponentDefinition, Interceptor, Role, TracingAgent
from evento.components.counting import CountOf
from evento.consumers.administration import ConsumerAdministration
from evento.consumers.consumer import Consumer
from evento.consumers.deliveries import delivery_of
from evento.consumers.directing import DirectionsWatch
from evento.consumers.head import HeadWatch
from evento.consumers.port import ConsumerId, ConsumerStateStore
from evento.consumers.settings import ConsumerSettings
from evento.consumers.status import ConsumerStatus, Standing
from evento.errors import DefinitionError, ReadModelBehind
from evento.gateway import CommandGateway, QueryGateway
from evento.messages import new_id
from evento.state_store import StateStore

__all__ = ["ConsumerGroup"]

IDLE_POLL = 0.005


class ConsumerGroup:
    """Starts, stops and asks all consumers of a bundle.

    Add the components, then enter it as an async context manager; the stores must be open for as long as it is.

    :param fetch_size: events per page.
    :param fetch_delay: the longest time between two looks at the head of the store, should its notices fail, and
        between two looks for what operators ask of the consumers in other processes.
    :param checkpoint_interval: the longest time that a handled event waits for its checkpoint.
    :param executors: pools of threads by name, for handlers with ``executor=``.
    :param lanes: how many lanes an executor has, by its name: for the executors that keep events of an aggregate in
        order. A consumer with a handler of such an executor handles all its events in lanes of its own.
    :param counts: where the runs of each handler are counted; default: nowhere.
    :param take_over: take leases whoever holds them: for a bundle that holds the file lock of an embedded store.
    :param lease_ttl: how long a replica that died keeps its consumers from the others.
    :param stop_timeout: how long a stop waits for running handlers.
    :param observer_concurrency: handlers of one observer that run at a time.
    """

    def __init__(
        self,
        bundle_id: str,
        *,
        state_store: StateStore,
        consumer_store: ConsumerStateStore,
        commands: CommandGateway | None = None,
        queries: QueryGateway | None = None,
        tracing: TracingAgent | None = None,
        interceptors: Sequence[Interceptor] = (),
        executors: Mapping[str, Executor] | None = None,
        lanes: Mapping[str, int] | None = None,
        counts: CountOf | None = None,
        fetch_size: int = 1000,
        fetch_delay: timedelta = timedelta(seconds=1),
        checkpoint_interval: timedelta = timedelta(milliseconds=100),
        take_over: bool = False,
        lease_ttl: timedelta = timedelta(seconds=15),
        stop_timeout: timedelta = timedelta(seconds=30),
        observer_concurrency: int = 32,
    ) -> None:
        self._bundle_id = bundle_id
        self._state_store = state_store
        self._consumer_store = consumer_store
        self._commands = commands
        self._queries = queries
        self._tracing = tracing
        self._interceptors = tuple(interceptors)
        self._executors = executors or {}
        self._lanes = lanes or {}
        self._counts = counts
        self._watch = HeadWatch(state_store, poll=fetch_delay.total_seconds())
        self._directions = DirectionsWatch(consumer_store, bundle_id, poll=fetch_delay.total_seconds())
        self._settings = ConsumerSettings(
            fetch_size=fetch_size,
            checkpoint_interval=checkpoint_interval.total_seconds(),
            lease_ttl=lease_ttl.total_seconds(),
            take_over=take_over,
            stop_timeout=stop_timeout.total_seconds(),
            observer_concurrency=observer_concurrency,
        )
        self._owner = new_id()
        self._consumers: dict[ConsumerId, Consumer] = {}
        self._gates: list[Consumer] = []
        self._stack = AsyncExitStack()

    def add(self, component: ComponentDefinition, instance: object, *, contexts: Sequence[str] | None = None) -> None:
        """Add a component, before the group is started: one consumer for each context pattern.

        :param contexts: instead of those of the component's class.
        :raises DefinitionError: it names an executor that is not there, or one with lanes where these cannot be; or it
            does not read the event stream.
        """
        if component.role not in {Role.PROJECTOR, Role.SAGA, Role.OBSERVER}:
            raise component.error(f"{component.role.value}s do not read the event stream")
        for context in dict.fromkeys(component.contexts if contexts is None else contexts):
            consumer = self._consumer(component, instance, context)
            self._consumers[consumer.id] = consumer
            self._directions.listen(consumer.id, consumer.direct)
            if component.wait_for_head_reached:
                self._gates.append(consumer)

    def _consumer(self, component: ComponentDefinition, instance: object, context: str) -> Consumer:
        consumer = ConsumerId(self._bundle_id, component.name, component.version, context)
        standing = Standing()
        delivery = delivery_of(
            consumer,
            component,
            instance,
            standing=standing,
            head=lambda: self._watch.head,
            commands=self._commands,
            queries=self._queries,
            tracing=self._tracing,
            interceptors=self._interceptors,
            executors=self._executors,
            lanes=self._lanes,
            counts=self._counts,
        )
        return Consumer(
            consumer,
            component.role,
            delivery,
            owner=self._owner,
            state_store=self._state_store,
            consumer_store=self._consumer_store,
            watch=self._watch,
            standing=standing,
            settings=self._settings,
            from_head=component.role is not Role.PROJECTOR,
        )

    # Lifecycle ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> ConsumerGroup:
        """Store the initial positions of all consumers, then start the projectors; :meth:`ready` starts the others.

        :raises StoreMismatch: the checkpoint of a consumer does not belong to the event store; nothing was started.
        :raises StoreUnavailable: a store cannot be reached.
        """
        async with AsyncExitStack() as stack:
            if self._consumers:  # else there is nobody to wake
                await stack.enter_async_context(self._watch)
                for consumer in self._consumers.values():
                    await consumer.register()
                await stack.enter_async_context(self._directions)
            stack.push_async_callback(self._stop)
            self._start(lambda role: role is Role.PROJECTOR)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop all consumers: see :meth:`Consumer.stop`."""
        await self._stack.aclose()

    async def ready(self) -> None:
        """Wait for the projectors with ``wait_for_head_reached=True``, as long as it takes; then start the others.

        Sagas and observers react on what they read from read models, so these come first.

        :raises ReadModelBehind: one of the projectors has paused itself, so that it will never get there.
        """
        waits = [
            asyncio.create_task(consumer.wait_head_reached(), name=f"evento-gate {consumer.id}")
            for consumer in self._gates
        ]
        try:
            await asyncio.gather(*waits)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        self._start(lambda role: role is not Role.PROJECTOR)

    def _start(self, chosen: Callable[[Role], bool]) -> None:
        for consumer in self._consumers.values():
            if chosen(consumer.role):
                consumer.start()

    async def _stop(self) -> None:
        await asyncio.gather(*(consumer.stop() for consumer in self._consumers.values()))

    # Questions ---------------------------------------------------------------------------------------------------

    def statuses(self) -> list[ConsumerStatus]:
        """Return where each consumer stands."""
        return [consumer.status for consumer in self._consumers.values()]

    async def lags(self) -> dict[ConsumerId, float]:
        """Return how many seconds the consumers that work here and have events before them are behind.

        :raises StoreUnavailable: a store cannot answer.
        """
        behind = [each for each in self._consumers.values() if each.status.lag_events and each.status.is_at_work]
        return {each.id: (await each.status_now()).lag_seconds or 0.0 for each in behind}

    @property
    def administration(self) -> ConsumerAdministration:
        """What operators see of these consumers, and what they can ask of them."""

        async def known() -> list[ConsumerId]:
            return list(self._consumers)

        async def status(consumer: ConsumerId) -> ConsumerStatus:
            return await self._consumers[consumer].status_now()

        return ConsumerAdministration(self._consumer_store, known=known, status=status, notify=self._directions.look)

    async def wait_for(self, projectors: Collection[str] | None, position: int, deadline: float) -> None:
        """Wait until projectors have committed progress to ``position``; dead and waiting events count as passed.

        :param projectors: names of components; None means all projectors.
        :param deadline: in the event loop's time.
        :raises ReadModelBehind: not in time; names those who are behind, and where they are.
        :raises DefinitionError: a name belongs to no projector of this bundle.
        """
        asked = [
            consumer
            for consumer in self._consumers.values()
            if consumer.role is Role.PROJECTOR and (projectors is None or consumer.id.component in projectors)
        ]
        unknown = set(projectors or ()) - {consumer.id.component for consumer in asked}
        if unknown:
            raise DefinitionError(
                f"{', '.join(sorted(unknown))} is no projector of {self._bundle_id}: add it to its components, "
                "or take it out of projectors="
            )
        await self._all_committed(asked, position, deadline)

    async def caught_up(self, timeout: float, *, idle: Callable[[], bool] = lambda: True) -> None:
        """Wait until, in one look, every consumer has committed up to the head and nothing is in flight.

        :param timeout: seconds.
        :param idle: tells whether nothing is in flight.
        :raises ReadModelBehind: not in time; names those who are behind, and where they are.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        consumers = list(self._consumers.values())
        while True:
            head = await self._state_store.head()
            self._watch.seen(head)
            await self._all_committed(consumers, head, deadline)
            # What came in while the consumers were waited for has moved the head, or is still in flight.
            retrying = [consumer for consumer in consumers if consumer.is_retrying]
            if not retrying and idle() and await self._state_store.head() == head and idle():
                return
            if loop.time() >= deadline and retrying:
                raise ReadModelBehind(
                    "dead events are still being retried: "
                    + "; ".join(_position(consumer.status) for consumer in retrying)
                )
            if loop.time() >= deadline:
                raise ReadModelBehind(f"requests are still in flight, or new events still arrive, after {timeout:g} s")
            await asyncio.sleep(IDLE_POLL)

    async def _all_committed(self, consumers: Sequence[Consumer], position: int, deadline: float) -> None:
        behind = [consumer for consumer in consumers if consumer.committed < position]
        if not behind:
            return
        outcomes = await asyncio.gather(
            *(consumer.wait_committed(position, deadline) for consumer in behind), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, ReadModelBehind):
                raise outcome
        late = [consumer.status for consumer in behind if consumer.committed < position]
        if late:
            raise ReadModelBehind(
                f"not all consumers have reached position {position}: "
                + "; ".join(_position(status) for status in late),
                wanted=position,
                behind={str(status.id): status.position for status in late},
            )


def _position(status: ConsumerStatus) -> str:
    text = f"{status.id} is at {status.position} ({status.state.value})"
    return f"{text}, last error: {status.last_error}" if status.errors else text
