"""A store behind a server, over a real nats-server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from nats_server import NatsServer, nats_server

from evento.gateway.nats import NatsConnection
from evento.messages import new_id
from evento.server.store import StoreService
from evento.state_store.sqlite import SqliteStateStore

Connecting = Callable[[str], NatsConnection]


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with nats_server(tmp_path) as running:
        yield running


@pytest.fixture
def connecting(nats: NatsServer) -> Connecting:
    """Make a connection of a user, not yet open."""
    return lambda user: NatsConnection([nats.url], cluster="test", user=user, instance=new_id())


@pytest.fixture
async def backing(tmp_path: Path) -> AsyncIterator[SqliteStateStore]:
    """The store that the server keeps."""
    async with SqliteStateStore(tmp_path / "events.db", keep_leases=True) as store:
        yield store


@pytest.fixture
async def service(connecting: Connecting, backing: SqliteStateStore) -> AsyncIterator[StoreService]:
    async with connecting("evento-server") as connection, StoreService(connection, backing) as running:
        yield running


@pytest.fixture
async def connection(connecting: Connecting, service: StoreService) -> AsyncIterator[NatsConnection]:
    """The connection of a bundle."""
    async with connecting("shop") as opened:
        yield opened
