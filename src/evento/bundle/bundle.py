"""EventoBundle: puts components, gateway, store and engines together in one process."""

from __future__ import annotations

import inspect
import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar, cast

from evento.bundle.address import ClusterServers, EmbeddedServer, parse_server
from evento.bundle.backend import Backend
from evento.bundle.discovery import Found, discover
from evento.bundle.embedded import EmbeddedBackend
from evento.bundle.executors import ConsumerExecutor, ThreadExecutor
from evento.bundle.injector import Injector, make_component
from evento.bundle.running import RunningBundle
from evento.bundle.settings import BundleSettings
from evento.components import (
    ComponentDefinition,
    Interceptor,
    Invoker,
    Role,
    TracingAgent,
    component_definition,
)
from evento.components.confinement import confinement_problems
from evento.consumers import ConsumerAdministration
from evento.errors import DefinitionError, Stopped
from evento.gateway import CommandGateway, QueryGateway
from evento.messages import MAX_PAYLOAD_BYTES

__all__ = ["EventoBundle"]

logger = logging.getLogger("evento.bundle")

I = TypeVar("I", bound=Invoker)  # noqa: E741
OnStarted = Callable[["EventoBundle"], Any]


class EventoBundle:
    """One process of an Evento system: its components, and all that they need to run.

    Nothing happens before ``start()`` (or ``async with bundle:``). A stopped bundle may be started again.

    :param bundle_id: names the bundle; consumers keep their place in the stream under it, so do not change it.
    :param version: the bundle's version, for catalogues.
    :param packages: packages that are imported and scanned for components and payloads.
    :param components: component classes, beside those of the packages.
    :param server: ``"embedded:FILE"``, or ``"embedded:"`` for a store in memory, or the addresses of Evento Servers,
        ``"nats://a:3030,b:3030"``; default ``$EVENTO_SERVER``, else in memory.
    :param token: proves the bundle to the servers; default ``$EVENTO_TOKEN``.
    :param tls: for servers with TLS: True (the system's certificate authorities), the path of a CA file, or a context.
    :param cluster: the name of the servers' cluster.
    :param start_timeout: seconds that a start waits for a server; None: for ever, as ``evento run`` does.
    :param injector: resolves constructor parameters of components: a callable ``type -> object`` or a mapping.
    :param consumer_state_store: SQLAlchemy URL of the database that keeps the consumers' places; default: a second
        file beside the embedded store. On a server there is no default: all replicas must share it.
        Put it where your read model lives to have exactly-once projectors.
    :param contexts: the contexts of a consumer component, over those of its class.
    :param tracing: hooks around messages; default: metadata flows, nothing is traced.
    :param interceptors: run around handlers, the first outermost.
    :param executors: named pools of threads for handlers that block, and lanes for consumers.
    :param sss_fetch_size: events per page of a consumer.
    :param sss_fetch_delay: the longest time between two looks of a waiting consumer; it is woken earlier by new events.
    :param handler_grace: seconds to wait for a handler that is not there; in one process there is nothing to wait for.
    :param max_in_flight_requests: bound on requests of this bundle without an answer.
    :param max_concurrent_handlers: bound on command and query handlers that run at a time.
    :param max_payload_bytes: largest encoded payload of a command, query, event or answer, by default 8 MiB; a server
        has a limit of its own (``payload_limit``). Beyond it: :class:`~evento.errors.PayloadError`.
    :param strict_confinement: refuse to start when gateways are used outside components; default: a warning.
    :param description, detail, repository_url, line_prefix: for catalogues.
    :param on_started: called with the bundle once it runs; may be async.
    :param state_cache_size: aggregates whose state is kept between commands; 0 turns the cache off.
    :param state_cache_expiry: after how long without use a state is read again from the store; its memory is given
        back when it is asked for then, or pushed out by another one.
    """

    def __init__(
        self,
        bundle_id: str,
        *,
        version: int = 1,
        packages: Sequence[str] = (),
        components: Sequence[type] = (),
        server: str | None = None,
        token: str | None = None,
        tls: ssl.SSLContext | str | bool | None = None,
        cluster: str = "evento-server",
        start_timeout: float | None = 60.0,
        injector: Injector = None,
        consumer_state_store: str | None = None,
        contexts: Mapping[type, Sequence[str]] | None = None,
        tracing: TracingAgent | None = None,
        interceptors: Sequence[Interceptor] = (),
        executors: Iterable[ThreadExecutor | ConsumerExecutor] = (),
        sss_fetch_size: int = 1000,
        sss_fetch_delay: timedelta = timedelta(seconds=1),
        handler_grace: float = 5.0,
        max_in_flight_requests: int = 2048,
        max_concurrent_handlers: int = 256,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        strict_confinement: bool = False,
        description: str = "",
        detail: str = "",
        repository_url: str = "",
        line_prefix: str = "L",
        on_started: OnStarted | None = None,
        state_cache_size: int = 8192,
        state_cache_expiry: timedelta = timedelta(minutes=10),
    ) -> None:
        self.bundle_id = bundle_id
        self.version = version
        self.server = server
        self.token = token
        self.tls = tls
        self.cluster = cluster
        self.start_timeout = start_timeout
        self.description = description
        self.detail = detail
        self.repository_url = repository_url
        self.line_prefix = line_prefix
        self._packages = _strings("packages", packages)
        self._components = tuple(components)
        self._injector = injector
        self._on_started = on_started
        self._strict_confinement = strict_confinement
        self._settings = BundleSettings(
            bundle_id=bundle_id,
            version=version,
            description=description,
            detail=detail,
            repository_url=repository_url,
            line_prefix=line_prefix,
            consumer_state_store=consumer_state_store,
            contexts=dict(contexts or {}),
            tracing=tracing,
            interceptors=tuple(interceptors),
            executors=tuple(executors),
            fetch_size=sss_fetch_size,
            fetch_delay=sss_fetch_delay,
            handler_grace=handler_grace,
            max_in_flight_requests=max_in_flight_requests,
            max_concurrent_handlers=max_concurrent_handlers,
            max_payload_bytes=max_payload_bytes,
            state_cache_size=state_cache_size,
            state_cache_expiry=state_cache_expiry,
        )
        self._settings.check()
        self._running: RunningBundle | None = None
        self._exit: AsyncExitStack | None = None
        self._starting = False
        self._invokers: dict[type, Invoker] = {}

    # Lifecycle ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Find the components, open the stores, start the consumers, serve the handlers.

        Returns when commands and queries can be sent; with a projector that has ``wait_for_head_reached=True`` only
        when it has caught up. When it raises, everything is closed again.

        :raises DefinitionError: something is declared wrongly.
        :raises StoreInUse: another bundle has the embedded store's file.
        :raises StoreUnavailable: a store cannot be opened, or no server answered within ``start_timeout``.
        :raises AuthenticationError: the servers refuse the token.
        """
        if self._running is not None or self._starting:
            raise DefinitionError(
                f"the bundle {self.bundle_id!r} is started already or still stopping: make another one, or await stop()"
            )
        self._starting = True
        try:
            running = await self._open()
        finally:
            self._starting = False
        try:
            await running.ready()
            if self._on_started is not None:
                outcome = self._on_started(self)
                if inspect.isawaitable(outcome):
                    await outcome
        except BaseException:
            await self.stop()
            raise

    async def _open(self) -> RunningBundle:
        backend = self._backend(parse_server(self.server))
        found = discover(self._packages, self._components)
        self._check_confinement(found)
        async with AsyncExitStack() as stack:
            running = await stack.enter_async_context(RunningBundle(self._settings, backend, found, make=self._make))
            self._running = running
            self._exit = stack.pop_all()
        return running

    def _backend(self, server: EmbeddedServer | ClusterServers) -> Backend:
        if isinstance(server, EmbeddedServer):
            return EmbeddedBackend(server)
        from evento.bundle.clustered import ClusterBackend  # here, as one process needs none of it

        return ClusterBackend(
            server,
            bundle_id=self.bundle_id,
            cluster=self.cluster,
            token=self.token if self.token is not None else os.environ.get("EVENTO_TOKEN"),
            tls=self.tls,
            handler_grace=self._settings.handler_grace,
            start_timeout=self.start_timeout,
        )

    async def stop(self) -> None:
        """Stop the consumers, refuse new requests, let running handlers end (at most 30 s), and close the stores.

        The 30 seconds are for the handlers of consumers and of requests together; those that take longer are cancelled
        or left behind, so that a stop takes 45 seconds at most.

        Nothing is dead-lettered by stopping: an event whose handling did not end is handled again after the next
        start. Stopping a stopped bundle does nothing.
        """
        stack, self._exit = self._exit, None
        if stack is None:
            return
        try:
            await stack.aclose()
        finally:
            self._running = None
            self._invokers.clear()

    async def __aenter__(self) -> EventoBundle:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """Run the bundle while a web application runs: ``FastAPI(lifespan=bundle.lifespan)``."""
        async with self:
            yield

    # Use ---------------------------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether the bundle is started."""
        return self._running is not None

    @property
    def commands(self) -> CommandGateway:
        """The gateway for commands; :class:`~evento.errors.Stopped` when the bundle is not started."""
        return self._up().commands

    @property
    def queries(self) -> QueryGateway:
        """The gateway for queries; :class:`~evento.errors.Stopped` when the bundle is not started."""
        return self._up().queries

    def invoker(self, cls: type[I]) -> I:
        """Return the invoker of a class, ready to be called; the same object each time."""
        running = self._up()
        if cls not in self._invokers:
            definition = component_definition(cls)
            if definition.role is not Role.INVOKER:
                raise definition.error("only invokers can be called: send a command or a query instead")
            instance = self._make(definition, running)
            instance._evento_runtime = running.invocations
            self._invokers[cls] = instance
        return cast(I, self._invokers[cls])

    @property
    def consumers(self) -> ConsumerAdministration:
        """Status of the consumers, pause and resume, and their dead event queues.

        :class:`~evento.errors.Stopped` when the bundle is not started.
        """
        return self._up().consumers.administration

    async def consumers_caught_up(self, timeout: float = 10.0) -> None:
        """Wait until, in one look, every consumer has committed up to the head and nothing is in flight.

        Events in the dead event queue count as handled, but not those that are to be retried now.

        :raises ReadModelBehind: not within ``timeout`` seconds; names the consumers that are behind.
        """
        await self._up().caught_up(timeout)

    def _up(self) -> RunningBundle:
        if self._running is None:
            raise Stopped(f"the bundle {self.bundle_id!r} is not running: use it inside 'async with bundle:'")
        return self._running

    def _make(self, definition: ComponentDefinition, running: RunningBundle) -> Any:
        own = {CommandGateway: running.commands, QueryGateway: running.queries, EventoBundle: self}
        return make_component(definition, self._injector, own)

    def _check_confinement(self, found: Found) -> None:
        problems = confinement_problems(found.modules)
        if problems and self._strict_confinement:
            raise DefinitionError(
                f"{len(problems)} gateway calls are outside components (strict_confinement): "
                + "; ".join(str(problem) for problem in problems[:10])
            )
        for problem in problems:
            logger.warning("%s", problem)


def _strings(what: str, values: Sequence[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise DefinitionError(f"{what} must be a list of names: write {what}=[{values!r}]")
    return tuple(values)
