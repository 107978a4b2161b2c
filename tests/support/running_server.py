"""A whole server on free ports, and clients of it."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from ports import free_port

from evento.gateway.nats import NatsConnection
from evento.server.server import EventoServer
from evento.server.settings import ServerSettings
from evento.server.tokens import TokenFile
from evento.server.values import Address

__all__ = ["bundle", "fetch", "free_settings", "token_for"]

FREE = Address("127.0.0.1", 0)


def free_settings(folder: Path, **settings: Any) -> ServerSettings:
    """Settings of a server in a folder, on free ports."""
    gateway = Address("127.0.0.1", free_port())  # not port 0: a nats-server started for that binds its port later
    return replace(ServerSettings(cluster_name="shop", data=folder, http=FREE, gateway=gateway), **settings)


def token_for(server: EventoServer, bundle_id: str, *serves: str) -> str:
    """Make a token as ``evento token create`` does."""
    return TokenFile(server.settings.token_file).create(bundle_id, serves=serves or None)


def bundle(server: EventoServer, bundle_id: str, token: str | None = None, **options: Any) -> NatsConnection:
    """The connection of a bundle."""
    return NatsConnection(
        server.gateway_url, cluster="shop", user=bundle_id, instance="1", token=token, start_timeout=30, **options
    )


async def fetch(
    server: EventoServer, path: str, *, token: str = "", tls: ssl.SSLContext | bool = True
) -> httpx.Response:
    """Ask the HTTP interface."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(verify=tls, trust_env=False) as client:
        return await client.get(server.http_url + path, headers=headers, timeout=20)
