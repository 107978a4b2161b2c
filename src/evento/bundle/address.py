"""The ``server`` of a bundle: where its System State Store and message gateway are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from evento.errors import DefinitionError

__all__ = ["ClusterServers", "EmbeddedServer", "parse_server"]

_SCHEMES = ("nats", "tls")
DEFAULT_PORT = 3030


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A store and a gateway inside the bundle's process; ``path`` None: in memory."""

    path: Path | None

    @property
    def consumer_state_url(self) -> str:
        """The SQLAlchemy URL of the default consumer state store: a second file beside the event store."""
        if self.path is None:
            return "sqlite+aiosqlite://"
        return f"sqlite+aiosqlite:///{self.path}-consumers"

    def refuse_as_consumer_state(self, url: str | None) -> None:
        """Raise :class:`DefinitionError` when consumer state is to live in the event store's own file.

        A handler's transaction there would wait for the append that waits for it.
        """
        if url is None or self.path is None or not url.startswith("sqlite"):
            return
        database = url.partition(":///")[2].partition("?")[0]
        if database and Path(database).resolve() == self.path.resolve():
            raise DefinitionError(
                f"consumer_state_store={url!r} is the event store's own file: give it another, such as the read model's"
            )


@dataclass(frozen=True, slots=True)
class ClusterServers:
    """The addresses of a cluster's servers, such as ``nats://host:3030``; one of them is enough to be connected."""

    urls: tuple[str, ...]


def parse_server(server: str | None) -> EmbeddedServer | ClusterServers:
    """Parse ``server=``; None means ``$EVENTO_SERVER``, else ``embedded:``.

    :raises DefinitionError: the text is no address.
    """
    text = server if server is not None else os.environ.get("EVENTO_SERVER") or "embedded:"
    scheme, separator, rest = text.partition(":")
    if scheme == "embedded" and separator:
        return EmbeddedServer(Path(rest).absolute() if rest else None)
    if scheme in _SCHEMES:
        parts = [part.strip() for part in text.split(",")]
        return ClusterServers(tuple(_cluster_url(_with_scheme(part, scheme), text) for part in parts))
    raise DefinitionError(
        f"server={text!r} is no address: use 'embedded:FILE', 'embedded:' for a store in memory, or "
        "'nats://HOST:3030' (several with commas between) for an Evento Server"
    )


def _with_scheme(part: str, scheme: str) -> str:
    """Complete an address behind the first, which says the scheme for all that leave it out."""
    return part if "://" in part else f"{scheme}://{part}"


def _cluster_url(url: str, text: str) -> str:
    try:
        parts = urlsplit(url)
        wrong = parts.scheme not in _SCHEMES or not parts.hostname or bool(parts.path.strip("/"))
        port = parts.port or DEFAULT_PORT
    except ValueError:
        wrong, port = True, 0
    if wrong or parts.username or parts.password:
        raise DefinitionError(
            f"server={text.rpartition('@')[2]!r} is no list of servers: write nats://HOST:3030,nats://HOST2:3030 "
            "(tls:// where the gateway is encrypted; the token goes into token=)"
        )
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{port}"
