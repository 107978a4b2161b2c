"""The server's side of the message gateway: the nats-server that it starts, or the NATS that it is pointed at."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Protocol

from evento.gateway.nats import NatsConnection
from evento.messages import new_id
from evento.server.nats_binary import find_nats_server
from evento.server.nats_config import nats_config
from evento.server.nats_server import NatsServer
from evento.server.ports import check_free, free_port
from evento.server.settings import ServerSettings
from evento.server.tls import own_context
from evento.server.tokens import SERVER_USER
from evento.server.users import TokenFollower, Users
from evento.server.values import Address

__all__ = ["ExternalGateway", "Gateway", "OwnGateway", "check_external", "open_gateway"]

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (to connect to, not to listen on)


class Gateway(Protocol):
    """A running message gateway."""

    connection: NatsConnection
    url: str

    async def state(self) -> Mapping[str, Any]:
        """Return what nats-server says of itself; an empty mapping where nobody can ask it.

        :raises OSError: it does not answer.
        """

    async def why_not_ready(self) -> str | None:
        """Return why messages cannot be passed on now; None when they can."""


@asynccontextmanager
async def open_gateway(settings: ServerSettings) -> AsyncIterator[Gateway]:
    """Start the gateway that the settings name, and connect to it.

    :raises ServerError: there is no nats-server, its port is taken, or it does not start.
    :raises AuthenticationError: the NATS of ``settings.nats`` refused the server.
    :raises StoreUnavailable: the NATS of ``settings.nats`` does not answer.
    """
    if settings.nats:
        async with _connection(
            settings, ",".join(settings.nats), settings.nats_password, _external_tls(settings)
        ) as own:
            yield ExternalGateway(own, settings)
        return
    users = Users(settings)
    name = f"{settings.cluster_name}-{new_id()}"
    address = _address(settings.gateway)
    if settings.cluster_listen is not None:
        check_free("cluster-listen", settings.cluster_listen)
    nats = NatsServer(
        await asyncio.to_thread(find_nats_server, settings.nats_server),
        folder=settings.data,
        config=lambda: nats_config(
            settings,
            name=name,
            gateway=address,
            users=users.allowed,
            folder=settings.data,
        ),
        start_timeout=settings.start_timeout,
    )
    reachable = Address(_ANY_ADDRESS.get(address.host, address.host), address.port)
    url = f"{'tls' if settings.tls else 'nats'}://{reachable}"
    tls = own_context(settings) if settings.tls else None
    server = users.credentials.server
    async with nats, _connection(settings, url, server, tls) as own, TokenFollower(users, nats) as follower:
        yield OwnGateway(own, nats, url, follower)


async def check_external(settings: ServerSettings) -> str:
    """Connect to the NATS of ``settings.nats`` once, and say so.

    :raises AuthenticationError: it refused the server.
    :raises StoreUnavailable: it does not answer.
    """
    url = ",".join(settings.nats)
    async with _connection(settings, url, settings.nats_password, _external_tls(settings)):
        return f"connected to {url}"


class ExternalGateway:
    """A NATS that others run."""

    def __init__(self, connection: NatsConnection, settings: ServerSettings) -> None:
        self.connection = connection
        self.url = ",".join(settings.nats)

    async def state(self) -> Mapping[str, Any]:
        """Return nothing: only its operators may ask it."""
        return {}

    async def why_not_ready(self) -> str | None:
        """Return whether the connection is lost."""
        return None if self.connection.is_connected else f"no connection to {self.url}"


class OwnGateway:
    """The nats-server that this server has started."""

    def __init__(self, connection: NatsConnection, nats: NatsServer, url: str, follower: TokenFollower) -> None:
        self.connection = connection
        self.nats = nats
        self.url = url
        self._follower = follower

    async def state(self) -> Mapping[str, Any]:
        """Return what nats-server says of itself, and how often it was started again as ``restarts``."""
        return {**await self.nats.state(), "restarts": self.nats.restarts}

    async def why_not_ready(self) -> str | None:
        """Return whether nats-server is down, or the connection to it lost, or its tokens are not those of the file."""
        if self.nats.pid is None:
            return "nats-server does not run; it is being started again"
        if not self.connection.is_connected:
            return f"no connection to {self.url}"
        return self._follower.trouble


@asynccontextmanager
async def _connection(
    settings: ServerSettings, url: str, secret: str | None, tls: ssl.SSLContext | None
) -> AsyncIterator[NatsConnection]:
    connection = NatsConnection(
        url,
        cluster=settings.cluster_name,
        user=SERVER_USER,
        instance=new_id(),
        token=secret,
        tls=tls,
        start_timeout=settings.start_timeout,
    )
    async with connection:
        yield connection


def _external_tls(settings: ServerSettings) -> ssl.SSLContext | None:
    if not any(url.startswith("tls:") for url in settings.nats):
        return None
    context = ssl.create_default_context(cafile=settings.tls_ca)
    if settings.tls_cert is not None and settings.tls_key is not None:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context


def _address(wanted: Address) -> Address:
    """Return where the gateway will listen, with a port that stays the same when nats-server is started again."""
    if wanted.port:
        check_free("gateway", wanted)
        return wanted
    return replace(wanted, port=free_port(wanted.host))
