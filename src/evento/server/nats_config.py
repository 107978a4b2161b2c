"""The configuration of the ``nats-server`` that the server starts, as JSON, which is what NATS reads too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from evento.gateway.nats.subjects import Subjects
from evento.server.config import envelope_bytes
from evento.server.permissions import User, admin_user, bundle_users, server_user
from evento.server.settings import ServerSettings
from evento.server.tokens import Token
from evento.server.values import Address

__all__ = ["nats_config", "required_permissions", "users_of"]

_ROUTE_USER = "evento-route"
_LOG_BYTES = 16 * 2**20
_PINGS_WITHOUT_ANSWER = 2


def users_of(settings: ServerSettings, tokens: Iterable[Token], *, server: str, admin: str) -> list[User]:
    """Return all users of the gateway; ``server`` and ``admin`` are the hashes of the own users' secrets."""
    subjects = Subjects(settings.cluster_name)
    return [server_user(subjects, server), admin_user(subjects, admin), *bundle_users(subjects, tokens)]


def nats_config(
    settings: ServerSettings, *, name: str, gateway: Address, users: Sequence[User] | None, folder: Path
) -> str:
    """Return the text of the configuration file.

    :param name: of this node, unlike that of every other.
    :param gateway: where it listens.
    :param users: who may connect; None: everybody.
    :param folder: where it may write its log and the ports that it found.
    """
    config: dict[str, Any] = {
        "server_name": name,
        "listen": _listen(gateway),
        "http": "127.0.0.1:-1",
        "ports_file_dir": str(folder.absolute()),
        "log_file": str((folder / "nats-server.log").absolute()),
        "logfile_size_limit": _LOG_BYTES,
        "logfile_max_num": 3,
        "max_payload": settings.payload_limit + envelope_bytes(settings.payload_limit),
        "max_pending": settings.max_pending,
        "write_deadline": f"{settings.write_deadline}s",
        "max_connections": settings.max_connections,
        "ping_interval": f"{settings.ping_interval}s",
        "ping_max": _PINGS_WITHOUT_ANSWER,
        "authorization": {"timeout": settings.auth_timeout},
    }
    if users is not None:
        config["authorization"]["users"] = [user.config() for user in users]
    if settings.tls:
        config["tls"] = {**_tls(settings), "verify": settings.tls_verify, "timeout": settings.auth_timeout}
    if settings.cluster_listen is not None:
        config["cluster"] = _cluster(settings, settings.cluster_listen)
    return json.dumps(config, indent=1, ensure_ascii=False)


def required_permissions(settings: ServerSettings, tokens: Iterable[Token]) -> str:
    """Return what a NATS that others run must be told: the users of the cluster, without their passwords."""
    users = [user.config() for user in users_of(settings, tokens, server="", admin="")]
    for user in users:
        user["password"] = f"<the password of {user['user']}>"
    return json.dumps({"authorization": {"users": users}}, indent=1, ensure_ascii=False)


def _cluster(settings: ServerSettings, listen: Address) -> dict[str, Any]:
    cluster: dict[str, Any] = {
        "name": settings.cluster_name,
        "listen": _listen(listen),
        "routes": [_route(url, settings.cluster_secret) for url in settings.cluster_routes],
    }
    if settings.cluster_secret is not None:
        cluster["authorization"] = {
            "user": _ROUTE_USER,
            "password": settings.cluster_secret,
            "timeout": settings.auth_timeout,
        }
    if settings.tls:
        cluster["tls"] = {**_tls(settings), "verify": True, "timeout": settings.auth_timeout}
    return cluster


def _route(url: str, secret: str | None) -> str:
    user = "" if secret is None else f"{_ROUTE_USER}:{quote(secret, safe='')}@"
    return f"nats-route://{user}{urlsplit(url).netloc}"


def _tls(settings: ServerSettings) -> dict[str, Any]:
    files = {"cert_file": settings.tls_cert, "key_file": settings.tls_key, "ca_file": settings.tls_ca}
    return {name: str(path.absolute()) for name, path in files.items() if path is not None}


def _listen(address: Address) -> str:
    return str(address) if address.port else f"{str(address).removesuffix('0')}-1"
