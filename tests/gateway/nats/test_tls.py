"""Encrypted connections: whom they trust, and that they never do without."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from certificates import Certificates
from nats_server import nats_server

from evento.errors import StoreUnavailable
from evento.gateway.nats import Delivery, NatsConnection


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def tls_config(certificates: Certificates, name: str, *, days: int = 3) -> str:
    cert, key = certificates.make(name, days=days)
    return f'tls {{ cert_file: "{cert}", key_file: "{key}" }}'


def connection(url: str, tls: ssl.SSLContext | None, *, start_timeout: float = 3.0) -> NatsConnection:
    """Refused, it tries again until the timeout, whose error has the reason: there must be time for one attempt."""
    return NatsConnection(url, cluster="test", user="shop", instance="1", tls=tls, start_timeout=start_timeout)


async def test_requests_go_over_tls_and_come_back_after_a_reconnect(tmp_path: Path, certificates: Certificates) -> None:
    config = tls_config(certificates, "127.0.0.1")
    trusting = ssl.create_default_context(cafile=str(certificates.ca))
    async with (
        nats_server(tmp_path, config=config) as server,
        connection(server.url, trusting, start_timeout=30.0) as one,
    ):

        def echo(delivery: Delivery) -> None:
            delivery.respond(delivery.data)

        await one.subscribe("x", echo)
        message = bytes(500_000)
        deadline = asyncio.get_running_loop().time() + 30
        assert await one.request("x", message, deadline) == message
        await server.kill()
        await server.start()
        assert await one.request("x", message, deadline, grace=30) == message


async def test_a_certificate_that_is_not_trusted_is_refused(tmp_path: Path, certificates: Certificates) -> None:
    config = tls_config(certificates, "127.0.0.1")
    async with nats_server(tmp_path, config=config) as server:
        with pytest.raises(StoreUnavailable, match=r"certificate verify failed.*; trust its authority"):
            async with connection(server.url, None):  # the system's authorities do not know it
                pass


async def test_an_expired_certificate_is_refused(tmp_path: Path, certificates: Certificates) -> None:
    config = tls_config(certificates, "127.0.0.1", days=-1)
    trusting = ssl.create_default_context(cafile=str(certificates.ca))
    async with nats_server(tmp_path, config=config) as server:
        with pytest.raises(StoreUnavailable, match="expired"):
            async with connection(server.url, trusting):
                pass


@pytest.mark.parametrize("by_address", [True, False])
async def test_a_server_without_tls_is_refused_where_it_is_demanded(tmp_path: Path, *, by_address: bool) -> None:
    async with nats_server(tmp_path) as server:
        url = server.url.replace("nats://", "tls://") if by_address else server.url
        with pytest.raises(StoreUnavailable, match="offers no TLS"):
            async with connection(url, None if by_address else ssl.create_default_context()):
                pass
