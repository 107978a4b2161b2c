"""``evento server --check``: all that a start needs, without starting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from evento.server.credentials import Credentials
from evento.server.exposure import check_exposure
from evento.server.gateway import check_external
from evento.server.nats_binary import find_nats_server
from evento.server.ports import check_free
from evento.server.settings import ServerSettings
from evento.server.stores import probe_registry, probe_store
from evento.server.tls import check_certificate
from evento.server.tokens import TokenFile
from evento.server.values import Address

__all__ = ["Finding", "check"]


@dataclass(frozen=True, slots=True)
class Finding:
    """How one thing is: ``text`` says so, or why it would keep the server from starting."""

    what: str
    fine: bool
    text: str


async def check(settings: ServerSettings) -> list[Finding]:
    """Return how everything is that a start needs; the settings themselves are fine when they could be read."""

    async def plain(look: Callable[[], str]) -> str:
        return await asyncio.to_thread(look)

    looks: list[tuple[str, Awaitable[str]]] = [
        ("HTTP port", plain(lambda: _port("http", settings.http))),
        ("tokens", plain(lambda: _tokens(settings))),
        ("who may come", plain(lambda: _exposure(settings))),
        ("certificate", plain(lambda: _certificate(settings))),
        ("store", probe_store(settings)),
        ("registry", probe_registry(settings)),
    ]
    if settings.nats:
        looks.insert(1, ("NATS", check_external(settings)))
    else:
        looks.insert(1, ("gateway port", plain(lambda: _port("gateway", settings.gateway))))
        if (listen := settings.cluster_listen) is not None:
            looks.insert(2, ("port of other nodes", plain(lambda: _port("cluster-listen", listen))))
        looks.insert(2, ("nats-server", plain(lambda: str(find_nats_server(settings.nats_server)))))
    return [Finding("configuration", True, "understood"), *[await _finding(what, look) for what, look in looks]]


async def _finding(what: str, look: Awaitable[str]) -> Finding:
    try:
        return Finding(what, True, await look)
    except Exception as error:  # whatever it is: the server would not start
        return Finding(what, False, " ".join(str(error).split()) or type(error).__name__)


def _port(setting: str, address: Address) -> str:
    check_free(setting, address)
    return f"{address} is free"


def _tokens(settings: ServerSettings) -> str:
    tokens = TokenFile(settings.token_file).read()
    Credentials.load(settings.data)
    if tokens is None:
        return f"none is needed (there is no file {settings.token_file})"
    return f"{len(tokens)} in {settings.token_file}"


def _exposure(settings: ServerSettings) -> str:
    check_exposure(settings, has_tokens=TokenFile(settings.token_file).read() is not None)
    return "as the settings say"


def _certificate(settings: ServerSettings) -> str:
    until = check_certificate(settings)
    return "no TLS" if until is None else f"{settings.tls_cert} holds until {until:%Y-%m-%d %H:%M}Z"
