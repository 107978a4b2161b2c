"""A real nats-server with the configuration that the server gives it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from guarded_gateway import Gateway
from ports import free_port

from evento.server.nats_binary import find_nats_server
from evento.server.nats_config import nats_config, users_of
from evento.server.nats_server import NatsServer
from evento.server.settings import ServerSettings
from evento.server.tokens import TokenFile, hash_secret
from evento.server.values import Address


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    return ServerSettings(cluster_name="shop", data=tmp_path / "data", gateway=Address("127.0.0.1", free_port()))


@pytest.fixture
async def gateway(settings: ServerSettings) -> AsyncIterator[Gateway]:
    """A gateway with the server's own two users; tokens come with :meth:`Gateway.allow` and ``server.reload``."""
    settings.data.mkdir(mode=0o700)

    def config() -> str:
        users = users_of(
            settings, TokenFile(settings.token_file).read() or (), server=hash_secret("s"), admin=hash_secret("a")
        )
        return nats_config(settings, name="one", gateway=settings.gateway, users=users, folder=settings.data)

    async with NatsServer(find_nats_server(), folder=settings.data, config=config) as server:
        yield Gateway(settings, server, {"evento-server": "s", "evento-admin": "a"})
