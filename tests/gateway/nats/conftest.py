"""A nats-server for the tests of this folder, and connections to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from nats_server import Connect, NatsServer, nats_server

from evento.gateway.nats import NatsConnection
from evento.messages import new_id


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with nats_server(tmp_path) as running:
        yield running


@pytest.fixture
async def connect(server: NatsServer) -> AsyncIterator[Connect]:
    """Open connections to the server; they are closed at the end."""
    async with AsyncExitStack() as stack:

        async def open_one(user: str = "shop", servers: str | None = None, **options: Any) -> NatsConnection:
            connection = NatsConnection(
                servers or server.url, cluster="test", user=user, instance=new_id(), **{"start_timeout": 30.0} | options
            )
            return await stack.enter_async_context(connection)

        yield open_one
