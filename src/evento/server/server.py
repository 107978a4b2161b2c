"""EventoServer: gateway, store service, registry and HTTP interface in one process."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Self, TypeVar

from evento.errors import StoreUnavailable
from evento.server.errors import ServerError
from evento.server.exposure import check_exposure, exposure_warnings
from evento.server.gateway import Gateway, open_gateway
from evento.server.health import Health
from evento.server.http import HttpServer, application
from evento.server.instances import InstanceCount
from evento.server.metrics import Metrics
from evento.server.private_files import locked, make_folder
from evento.server.registry import RegistryDatabase, RegistryService
from evento.server.samples import Samples
from evento.server.settings import ServerSettings
from evento.server.store import StoreService
from evento.server.store_metrics import store_metrics
from evento.server.stores import open_store, registry_address
from evento.server.telemetry import Telemetry
from evento.server.tls import check_certificate
from evento.server.tokens import TokenFile
from evento.state_store import StateStore

__all__ = ["EventoServer"]

logger = logging.getLogger("evento.server")

T = TypeVar("T")
_VERSION = version("evento-framework")


class EventoServer:
    """Serves a cluster's bundles from entering to leaving.

    Leaving drains: no new request is taken, those under way are answered, then all is closed; after
    ``shutdown_timeout`` what is left is cut off.

    :param settings: see :class:`ServerSettings`.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.health = Health()
        self.telemetry = Telemetry()
        self._stack = AsyncExitStack()
        self._gateway: Gateway | None = None
        self._http: HttpServer | None = None
        self._registry: RegistryDatabase | None = None
        self._instances: InstanceCount | None = None

    @property
    def gateway_url(self) -> str:
        """Where bundles of this machine connect; with the port that the system chose."""
        if self._gateway is None:
            raise ServerError("the server does not run")
        return self._gateway.url

    @property
    def http_url(self) -> str:
        """Where the HTTP interface is; with the port that the system chose."""
        if self._http is None:
            raise ServerError("the server does not run")
        return f"{'https' if self.settings.tls else 'http'}://{self._http.address}"

    async def __aenter__(self) -> Self:
        """Start all parts; when one fails, those before it are stopped again.

        :raises ServerError: something that it needs is missing; the message names it and the mend.
        :raises StoreUnavailable: the store cannot be opened.
        """
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        logger.info(
            "Evento Server %s serves cluster %r: gateway %s, HTTP %s, store %s",
            _VERSION,
            self.settings.cluster_name,
            self.gateway_url,
            self.http_url,
            self._store_name,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.health.draining = True
        logger.info("the server is stopping: what is under way is answered")
        try:
            async with asyncio.timeout(self.settings.shutdown_timeout):
                await self._stack.aclose()
        except TimeoutError:
            logger.error("what was under way after %g seconds was cut off", self.settings.shutdown_timeout)
        else:
            logger.info("the server has stopped")

    async def _start(self, stack: AsyncExitStack) -> None:
        """Enter the parts in the order in which they need each other; they are left in the opposite one."""
        settings = self.settings
        has_tokens = TokenFile(settings.token_file).read() is not None
        check_exposure(settings, has_tokens=has_tokens)
        for warning in exposure_warnings(settings, has_tokens=has_tokens):
            logger.warning("%s", warning)
        metrics = Metrics(
            self.telemetry,
            info={
                "version": _VERSION,
                "cluster": settings.cluster_name,
                "instance": self._instance,
            },
            certificate_expires=check_certificate(settings),
        )
        await stack.enter_async_context(_own_folder(settings))
        app = application(self.health, lambda: self._metrics(metrics), metrics_token=settings.metrics_token)
        self.health.add("start", self._why_not_started)
        self._http = await stack.enter_async_context(HttpServer(settings, app))
        store = await self._opened("the store", stack, open_store(settings))
        self.health.add("store", lambda: _reached(store))
        self._registry = await self._opened("the registry", stack, self._registry_database())
        self.health.add("registry", self._why_no_registry)
        self._instances = await stack.enter_async_context(InstanceCount(self._registry, self.telemetry))
        gateway = await stack.enter_async_context(open_gateway(settings))
        self.health.add("gateway", gateway.why_not_ready)
        service = StoreService(
            gateway.connection,
            store,
            max_fetches=settings.fetch_concurrency,
            payload_limit=settings.payload_limit,
        )
        metrics.add(lambda: store_metrics(service.counters))
        await stack.enter_async_context(Samples(gateway.connection, self.telemetry))
        await stack.enter_async_context(service)
        await stack.enter_async_context(RegistryService(gateway.connection, self._registry))
        self._gateway = gateway

    async def _opened(self, what: str, stack: AsyncExitStack, opening: AbstractAsyncContextManager[T]) -> T:
        try:
            async with asyncio.timeout(self.settings.start_timeout):
                return await stack.enter_async_context(opening)
        except TimeoutError:
            raise StoreUnavailable(
                f"{what} in {self._store_name} did not answer within {self.settings.start_timeout:g} seconds"
            ) from None

    def _registry_database(self) -> RegistryDatabase:
        url, schema = registry_address(self.settings)
        return RegistryDatabase(
            url,
            schema=schema,
            cluster=self.settings.cluster_name,
            lease=self.settings.lease,
            server=self._instance,
        )

    @property
    def _instance(self) -> str:
        return self.settings.instance_id or socket.gethostname()

    @property
    def _store_name(self) -> str:
        """The store without what may be secret in its URL."""
        scheme, separator, rest = self.settings.store_url.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}" if separator else self.settings.store_url

    async def _metrics(self, metrics: Metrics) -> bytes:
        try:
            metrics.gateway(await self._gateway.state() if self._gateway is not None else {})
        except OSError as error:
            logger.debug("nats-server does not tell how it is: %s", error)
            metrics.gateway({})
        if self._instances is not None:
            await self._instances.refresh()
        return metrics.text()

    async def _why_no_registry(self) -> str | None:
        if self._registry is not None:
            await self._registry.view("")
        return None

    async def _why_not_started(self) -> str | None:
        return "it is starting" if self._gateway is None else None


@asynccontextmanager
async def _own_folder(settings: ServerSettings) -> AsyncIterator[None]:
    """Hold the data folder against other servers."""
    make_folder(settings.data)
    try:
        with locked(settings.data / "server", wait=False):
            yield
    except BlockingIOError:
        raise ServerError(
            f"another server uses the folder {settings.data}: stop it, or give this one its own with --data"
        ) from None


async def _reached(store: StateStore) -> str | None:
    await store.head()
    return None
