"""One run of a bundle: everything between start and stop, opened and closed in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

from evento.bundle.admission import Admission
from evento.bundle.aggregates import AggregateRuntime
from evento.bundle.backend import Backend
from evento.bundle.boundaries import Boundaries
from evento.bundle.cache import StateCache
from evento.bundle.describing import describe
from evento.bundle.discovery import Found
from evento.bundle.executors import Executors
from evento.bundle.invokers import InvokerRuntime
from evento.bundle.payload_registry import PayloadRegistry
from evento.bundle.projections import ProjectionRuntime
from evento.bundle.sampling import HandlerCounts, Sampler
from evento.bundle.services import ServiceRuntime
from evento.bundle.serving import served
from evento.bundle.settings import BundleSettings
from evento.bundle.tasks import Tasks
from evento.components import ComponentDefinition, HandlerKind, Role, TracingAgent
from evento.consumers import ConsumerGroup, SqlConsumerStateStore
from evento.errors import DefinitionError
from evento.gateway import CommandGateway, QueryGateway, RequestSender
from evento.messages import definition_of, new_id
from evento.messages.registration import BundleDescription
from evento.state_store import StateStore

__all__ = ["RunningBundle"]

logger = logging.getLogger("evento.bundle")

DRAIN_SECONDS = 30.0
"""For which a stop lets handlers end, in all: those of consumers first, those of requests in what is left."""
LAST_SECONDS = 2.0
"""What is left at least: requests come in until the consumers have stopped."""
Make = Callable[[ComponentDefinition, "RunningBundle"], Any]
_CONSUMERS = {Role.PROJECTOR, Role.SAGA, Role.OBSERVER}
_HANDLED = {HandlerKind.AGGREGATE_COMMAND: "command", HandlerKind.COMMAND: "command", HandlerKind.QUERY: "query"}


class RunningBundle:
    """The parts of a started bundle.

    Opened in this order, closed in the other: executors, backend, consumer state store, handlers, consumers; at last
    the handlers are shown to other bundles.

    :param make: makes a component's instance once the gateways exist.
    """

    def __init__(self, settings: BundleSettings, backend: Backend, found: Found, *, make: Make) -> None:
        self._settings = settings
        self._backend = backend
        self._found = found
        self._make = make
        self._stack = AsyncExitStack()
        self._drain_until: float | None = None
        self._instance_id = new_id()
        self._tasks = Tasks()
        self._boundaries = Boundaries()
        self._cache = StateCache(size=settings.state_cache_size, expiry=settings.state_cache_expiry.total_seconds())
        self._admission = Admission(limit=settings.max_concurrent_handlers, max_waiting=settings.max_in_flight_requests)
        tracing = settings.tracing
        correlates = tracing is not None and type(tracing).correlate is not TracingAgent.correlate
        self._sender = RequestSender(
            backend.bus,
            correlate=tracing.correlate if tracing is not None and correlates else None,
            max_in_flight=settings.max_in_flight_requests,
        )
        self._counts = HandlerCounts()
        self._registry = PayloadRegistry()
        limit = settings.max_payload_bytes
        self.commands = CommandGateway(self._sender, event_classes=self._registry.event_class, max_payload_bytes=limit)
        self.queries = QueryGateway(self._sender, max_payload_bytes=limit)
        self.invocations = InvokerRuntime(
            commands=self.commands,
            queries=self.queries,
            sender=self._sender,
            tracing=tracing,
            interceptors=settings.interceptors,
        )
        self.store: StateStore
        self.consumers: ConsumerGroup

    async def __aenter__(self) -> RunningBundle:
        async with self._stack:
            await self._open()
            self._stack = self._stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._drain_until = asyncio.get_running_loop().time() + DRAIN_SECONDS
        await self._stack.aclose()

    async def ready(self) -> None:
        """Wait for the projectors that the bundle must not be without, start sagas and observers, and be reachable."""
        await self.consumers.ready()
        await self._backend.enable()

    async def caught_up(self, timeout: float) -> None:
        """Wait until every consumer has committed up to the head and nothing is in flight."""
        await self.consumers.caught_up(timeout, idle=lambda: self._sender.in_flight == 0)

    async def _open(self) -> None:
        components = self._found.components
        self._register_payloads()
        self._refuse_two_handlers()
        self._refuse_strange_contexts()
        state_url = self._consumer_state_url()
        executors = Executors(self._settings.executors)
        self._stack.callback(executors.close)
        pools = executors.open(components)
        await self._stack.enter_async_context(self._backend)
        self.store = await self._backend.join(self._description())
        consumer_store = await self._stack.enter_async_context(SqlConsumerStateStore(state_url))
        self._stack.push_async_callback(self._drain)
        self.consumers = ConsumerGroup(
            self._settings.bundle_id,
            state_store=self.store,
            consumer_store=consumer_store,
            commands=self.commands,
            queries=self.queries,
            fetch_size=self._settings.fetch_size,
            fetch_delay=self._settings.fetch_delay,
            tracing=self._settings.tracing,
            interceptors=self._settings.interceptors,
            executors=pools,
            lanes=executors.lanes,
            counts=self._counts.of if self._is_sampled else None,
            take_over=self._backend.sole_owner,
            stop_timeout=timedelta(seconds=DRAIN_SECONDS),
        )
        for component in components:
            await self._install(component, pools)
        await self._stack.enter_async_context(self.consumers)
        await self._stack.enter_async_context(self._backend.operated(self.consumers))
        if (publish := self._backend.publish_sample) is not None:
            group = self.consumers
            await self._stack.enter_async_context(
                Sampler(self._counts, statuses=group.statuses, lags=group.lags, publish=publish)
            )

    @property
    def _is_sampled(self) -> bool:
        """Whether anybody wants to know what handlers do; else nothing is counted."""
        return self._backend.publish_sample is not None

    def _consumer_state_url(self) -> str:
        url = self._backend.consumer_state_url(self._settings.consumer_state_store)
        if url is not None:
            return url
        names = [component.name for component in self._found.components if component.role in _CONSUMERS]
        if names:
            raise DefinitionError(
                f"the bundle {self._settings.bundle_id!r} has consumers ({', '.join(names)}), and on a server it must "
                "be told where to keep their places: set consumer_state_store= to the URL of a database that all "
                "replicas share, such as postgresql+asyncpg://..., or sqlite+aiosqlite:///FILE on one machine"
            )
        return "sqlite+aiosqlite://"  # nothing will be kept

    def _description(self) -> BundleDescription:
        settings = self._settings
        return describe(
            self._found.components,
            [definition_of(cls) for cls in self._registry],
            bundle_id=settings.bundle_id,
            version=settings.version,
            description=settings.description,
            detail=settings.detail,
            repository_url=settings.repository_url,
            line_prefix=settings.line_prefix,
        )

    def _register_payloads(self) -> None:
        for component in self._found.components:
            self._registry.add_component(component)
        for payload in self._found.payloads:
            self._registry.add(payload)

    def _refuse_two_handlers(self) -> None:
        owners: dict[tuple[str, str], str] = {}
        for component in self._found.components:
            for handler in component.handlers:
                kind = _HANDLED.get(handler.kind)
                if kind is None:
                    continue
                other = owners.setdefault((kind, handler.payload_name), handler.id)
                if other != handler.id:
                    raise component.error(
                        f"the {kind} {handler.payload_name!r} is handled by {other} and by {handler.id}: a {kind} has "
                        "one handler in the whole system"
                    )

    def _refuse_strange_contexts(self) -> None:
        consumers = {component.cls for component in self._found.components if component.role in _CONSUMERS}
        for cls in self._settings.contexts.keys() - consumers:
            raise DefinitionError(
                f"contexts= names {getattr(cls, '__qualname__', cls)}, which is no projector, saga or observer of the "
                f"bundle {self._settings.bundle_id!r}: add it to components= or packages=, or take it out"
            )

    async def _install(self, component: ComponentDefinition, pools: Any) -> None:
        """Make a component and put its handlers to work."""
        settings = self._settings
        if component.role is Role.INVOKER:
            return  # made when the application asks for it
        instance = self._make(component, self)
        common: dict[str, Any] = {
            "tracing": settings.tracing,
            "interceptors": settings.interceptors,
            "executors": pools,
            "max_payload_bytes": settings.max_payload_bytes,
        }
        match component.role:
            case Role.AGGREGATE:
                aggregate = AggregateRuntime(
                    component,
                    instance,
                    store=self.store,
                    commands=self.commands,
                    sender=self._sender,
                    boundaries=self._boundaries,
                    cache=self._cache,
                    knows=self._registry.event_class,
                    **common,
                )
                await self._serve(component, HandlerKind.AGGREGATE_COMMAND, aggregate.handle)
            case Role.SERVICE:
                service = ServiceRuntime(
                    component,
                    instance,
                    owner=self._instance_id,
                    store=self.store,
                    commands=self.commands,
                    sender=self._sender,
                    boundaries=self._boundaries,
                    tasks=self._tasks,
                    **common,
                )
                await self._serve(component, HandlerKind.COMMAND, service.handle)
            case Role.PROJECTION:
                projection = ProjectionRuntime(
                    component, instance, queries=self.queries, wait_for=self._wait_for, **common
                )
                await self._serve(component, HandlerKind.QUERY, projection.handle, ready=projection.ready)
            case Role.PROJECTOR | Role.SAGA | Role.OBSERVER:
                contexts = settings.contexts.get(component.cls, component.contexts)
                self.consumers.add(component, instance, contexts=contexts)

    async def _serve(
        self, component: ComponentDefinition, kind: HandlerKind, handle: Any, *, ready: Any = None
    ) -> None:
        for handler in component.handlers_of(kind):
            count = self._counts.of(handler) if self._is_sampled else None
            serve = served(handle, self._admission, ready=ready, count=count)
            await self._backend.bus.serve(_HANDLED[kind], handler.payload_name, serve)

    async def _wait_for(self, projection: ComponentDefinition, position: int, deadline: float) -> None:
        names = {projector.__name__ for projector in projection.projectors} or None
        await self.consumers.wait_for(names, position, deadline)

    async def _drain(self) -> None:
        """Refuse new requests and let running handlers end, with what they still send."""
        await self._backend.disable()
        self._sender.drain()
        if not await self._admission.drained(self._drain_seconds()):
            logger.warning(
                "%d handlers of %s still run at the end of the stop's %g s and are left behind",
                self._admission.running,
                self._settings.bundle_id,
                DRAIN_SECONDS,
            )
        self._sender.close()
        await self._tasks.close(self._drain_seconds())

    def _drain_seconds(self) -> float:
        if self._drain_until is None:  # the start has failed
            return DRAIN_SECONDS
        return max(self._drain_until - asyncio.get_running_loop().time(), LAST_SECONDS)
