"""The terminal's place in a cluster: a connection to its servers as the administrator, and what it can be asked for."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from evento.cli.arguments import text
from evento.cli.errors import CommandFailed, WrongUse
from evento.errors import AuthenticationError, DefinitionError, error_from_data
from evento.messages import new_id
from evento.state_store import StateStore

if TYPE_CHECKING:
    from evento.gateway.nats import NatsConnection

__all__ = [
    "add_cluster_options",
    "add_token_file",
    "ask_registry",
    "cluster_address",
    "cluster_store",
    "connected",
    "given_token",
    "is_cluster",
]

ADMIN_USER = "evento-admin"
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
_GRACE_SECONDS = 2.0
_MAX_TOKEN_FILE = 64 * 1024


def add_cluster_options(parser: argparse.ArgumentParser, *, whose: str = "the administrator's") -> None:
    """Declare what it takes to connect to Evento Servers, beside their addresses."""
    options = parser.add_argument_group("for --server nats://...")
    add_token_file(options, whose=whose)
    options.add_argument("--cluster", type=text, metavar="NAME", default="evento-server", help="the cluster's name")
    options.add_argument("--ca", type=text, metavar="FILE", help="the authorities to trust (default: the system's)")


def add_token_file(parser: Any, *, whose: str) -> None:
    """Declare ``--token-file``; a token itself would be in the list of processes for all to read."""
    parser.add_argument(
        "--token-file",
        type=text,
        metavar="FILE",
        help=f"a file with {whose} token (default: the token in $EVENTO_TOKEN)",
    )


def is_cluster(server: str) -> bool:
    """Whether an address is that of Evento Servers."""
    scheme, colon, _ = server.partition(":")
    return bool(colon) and scheme in ("nats", "tls")


def cluster_address(arguments: argparse.Namespace) -> str | None:
    """Return the addresses of servers that the command line names, else ``$EVENTO_SERVER``; None: it names others."""
    if getattr(arguments, "store", None) is not None:
        return None
    server = arguments.server or os.environ.get("EVENTO_SERVER") or ""
    return server if is_cluster(server) else None


def given_token(arguments: argparse.Namespace) -> str | None:
    """Return the token of ``--token-file``, else of ``$EVENTO_TOKEN``; None: there is none.

    A server's ``credentials.json`` serves too: it holds the administrator's.

    :raises CommandFailed: the file cannot be read, or holds no token.
    """
    if arguments.token_file is None:
        return os.environ.get("EVENTO_TOKEN") or None
    path = Path(arguments.token_file)
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_TOKEN_FILE).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise CommandFailed(f"the token file {path} cannot be read: {reason}") from None
    if content.startswith("{"):
        content = _of_credentials(content)
    if not content or len(content.split()) != 1:
        raise CommandFailed(f"the token file {path} holds no token: it must be the one word in it")
    return content


def _of_credentials(content: str) -> str:
    try:
        return str(msgspec.json.decode(content, type=dict[str, Any]).get("admin", ""))
    except msgspec.MsgspecError:
        return ""


@asynccontextmanager
async def connected(arguments: argparse.Namespace, address: str) -> AsyncIterator[NatsConnection]:
    """Connect to the servers at ``address`` as the administrator.

    :raises WrongUse: the address is none.
    :raises StoreUnavailable: no server answers.
    :raises AuthenticationError: the servers refuse the token.
    """
    from evento.bundle.address import ClusterServers, parse_server
    from evento.gateway.nats import NatsConnection

    try:
        servers = parse_server(address)
    except DefinitionError:
        raise WrongUse(
            f"{address.rpartition('@')[2]!r} is no list of servers: write nats://HOST:3030,nats://HOST2:3030 (tls:// "
            "where the gateway is encrypted); a token goes into a file for --token-file, or into $EVENTO_TOKEN"
        ) from None
    assert isinstance(servers, ClusterServers)  # noqa: S101 - the caller has looked
    connection = NatsConnection(
        servers.urls,
        cluster=arguments.cluster,
        user=ADMIN_USER,
        instance=new_id(),
        token=given_token(arguments),
        tls=_trusting(arguments.ca),
        start_timeout=CONNECT_SECONDS,
    )
    with _quiet():
        try:
            await connection.__aenter__()
        except AuthenticationError as error:
            raise CommandFailed(
                f"{error}; the token of {ADMIN_USER} is in the server's credentials.json: name that file with "
                "--token-file, or set $EVENTO_TOKEN"
            ) from error
        try:
            yield connection
        finally:
            await connection.close()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the connection logs to itself: how it ends is said in one line."""
    handler = logging.NullHandler()
    loggers = [logging.getLogger(name) for name in ("evento.gateway.nats", "evento.state_store")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def _trusting(ca: str | None) -> ssl.SSLContext | None:
    if ca is None:
        return None
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise CommandFailed(f"--ca {ca}: the certificates cannot be read ({error})") from None


@asynccontextmanager
async def cluster_store(arguments: argparse.Namespace, address: str) -> AsyncIterator[StateStore]:
    """Open the store that the servers keep."""
    from evento.state_store.remote import RemoteStateStore

    async with (
        connected(arguments, address) as connection,
        RemoteStateStore(connection, timeout=ANSWER_SECONDS) as store,
    ):
        yield store


async def ask_registry(connection: NatsConnection, operation: str, call: msgspec.Struct) -> Any:
    """Ask the servers' registry, and return its answer.

    :raises CommandFailed: no server answers.
    """
    from evento.gateway.nats import NoResponders
    from evento.gateway.nats.calls import encode
    from evento.gateway.nats.registry import REGISTRY

    deadline = asyncio.get_running_loop().time() + ANSWER_SECONDS
    try:
        data = await connection.request(
            connection.subjects.registry(operation), encode(call), deadline, grace=_GRACE_SECONDS
        )
    except NoResponders:
        raise CommandFailed(
            f"a gateway answers, but no Evento Server of the cluster {connection.subjects.cluster!r}: look whether one "
            "runs, and whether --cluster is its name"
        ) from None
    except TimeoutError:
        raise CommandFailed(f"no server has answered within {ANSWER_SECONDS:g} s: look at its log") from None
    answer = REGISTRY[operation].decode_answer(data)
    if answer.error is not None:
        raise error_from_data(answer.error)
    return answer.value
