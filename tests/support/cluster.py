"""A small cluster in one process: a real nats-server, and a server's store and registry over it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from nats_server import NatsServer, nats_server

from evento import EventoBundle
from evento.gateway.nats import NatsConnection
from evento.messages import new_id
from evento.server.registry import RegistryDatabase, RegistryService
from evento.server.store import StoreService
from evento.state_store.sqlite import SqliteStateStore

__all__ = ["Cluster", "a_cluster"]

NAME = "test"


class Cluster:
    """What bundles connect to; the server may go and come back.

    :param name: of the cluster.
    :param lease: seconds that an instance lives without a heartbeat.
    """

    def __init__(self, folder: Path, nats: NatsServer, *, name: str = NAME, lease: float = 15.0) -> None:
        self.folder = folder
        self.nats = nats
        self.url = nats.url
        self._name = name
        self._lease = lease
        self._server = AsyncExitStack()
        self.store: SqliteStateStore
        self.registry: RegistryDatabase

    async def start_server(self) -> None:
        """Start the one server."""
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(
                NatsConnection([self.url], cluster=self._name, user="evento-server", instance=new_id())
            )
            self.store = await stack.enter_async_context(SqliteStateStore(self.folder / "events.db", keep_leases=True))
            url = f"sqlite+aiosqlite:///{self.folder / 'registry.db'}"
            self.registry = await stack.enter_async_context(
                RegistryDatabase(url, cluster=self._name, lease=self._lease)
            )
            await stack.enter_async_context(StoreService(connection, self.store))
            await stack.enter_async_context(RegistryService(connection, self.registry))
            self._server = stack.pop_all()

    async def stop_server(self) -> None:
        """Stop it gracefully."""
        await self._server.aclose()

    def bundle(self, bundle_id: str, components: Any, **options: Any) -> EventoBundle:
        """Make a bundle of this cluster; its consumers keep their places in a file of its own."""
        options.setdefault("server", self.url)
        options.setdefault("consumer_state_store", f"sqlite+aiosqlite:///{self.folder / bundle_id}-consumers.db")
        return EventoBundle(bundle_id, components=components, cluster=self._name, **options)


@asynccontextmanager
async def a_cluster(folder: Path, *, name: str = NAME, lease: float = 15.0) -> AsyncIterator[Cluster]:
    """Run a cluster."""
    async with nats_server(folder) as nats:
        cluster = Cluster(folder, nats, name=name, lease=lease)
        await cluster.start_server()
        try:
            yield cluster
        finally:
            await cluster.stop_server()
