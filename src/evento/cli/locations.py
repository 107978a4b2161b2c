"""Which System State Store a command reads: ``--store``, ``--server`` or ``$EVENTO_SERVER``."""

from __future__ import annotations

import argparse
import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from sqlalchemy import URL

from evento.cli.arguments import text
from evento.cli.cluster import add_cluster_options, cluster_address, cluster_store
from evento.cli.errors import CommandFailed, WrongUse
from evento.databases import parse_url
from evento.errors import DefinitionError
from evento.state_store import StateStore

__all__ = ["add_consumers_option", "add_store_options", "check_schema", "consumer_state_url", "open_store"]

_GIVE_ONE = (
    "give --store sqlite:PATH or postgresql://..., --server embedded:PATH or --server nats://HOST:3030, "
    "or set $EVENTO_SERVER"
)
_POSTGRESQL = ("postgresql", "postgres")
_SCHEMA = "evento"


def add_store_options(parser: argparse.ArgumentParser) -> None:
    """Declare ``--store`` and ``--server``, and what belongs to PostgreSQL and to a server of a cluster."""
    group = parser.add_argument_group("which store")
    options = group.add_mutually_exclusive_group()
    options.add_argument("--store", type=text, metavar="URL", help="sqlite:PATH or postgresql://...")
    options.add_argument(
        "--server",
        type=text,
        metavar="URL",
        help="embedded:PATH, or nats://HOST:3030 of Evento Servers (several with commas); default: $EVENTO_SERVER",
    )
    group.add_argument(
        "--store-schema",
        type=text,
        metavar="NAME",
        help=f"the schema of --store postgresql://..., the server's store_schema (default: {_SCHEMA})",
    )
    add_cluster_options(parser)


def add_consumers_option(parser: argparse.ArgumentParser) -> None:
    """Declare ``--consumers``."""
    parser.add_argument(
        "--consumers",
        type=text,
        metavar="URL",
        help="the consumer state: sqlite:PATH, or what the bundle has as consumer_state_store= (default: the file "
        "PATH-consumers)",
    )


def consumer_state_url(arguments: argparse.Namespace) -> str:
    """Return the SQLAlchemy URL of the consumer state that belongs to the store of the command line.

    :raises CommandFailed: its file does not exist.
    """
    if arguments.consumers is None:
        if _is_postgresql(arguments):
            raise WrongUse("name the consumer state with --consumers: beside a store on PostgreSQL there is none")
        path = Path(f"{_path(arguments)}-consumers").absolute()
    else:
        url = _database(arguments.consumers)
        if url.get_backend_name() != "sqlite":
            return url.render_as_string(hide_password=False)
        path = Path(url.database or "").absolute()
    if not path.is_file():
        raise CommandFailed(
            f"there is no consumer state at {path}: a bundle makes it at its first start; where the bundle "
            "keeps it elsewhere (consumer_state_store=), name it with --consumers sqlite:PATH"
        )
    return f"sqlite+aiosqlite:///{path}"


def _database(text: str) -> URL:
    scheme, _, path = text.partition(":")
    if scheme == "sqlite" and path and not path.startswith("//"):
        return URL.create("sqlite", database=path)
    try:
        return parse_url(text, option="--consumers")
    except DefinitionError as error:
        raise WrongUse(f"{error}; or like sqlite:PATH, such as sqlite:readmodel.db") from None


def open_store(arguments: argparse.Namespace, *, read_only: bool = True) -> AbstractAsyncContextManager[StateStore]:
    """Return the store that the command line names; it is opened by ``async with``.

    Reading works while a bundle has the file open, and never creates a file. The store of a cluster is reached through
    its servers, whatever ``read_only`` says.

    :raises WrongUse: none is named, or in a way that makes no sense.
    :raises CommandFailed: the file does not exist, or what reads such a store is not installed.
    """
    check_schema(arguments)
    if _is_postgresql(arguments):
        return _open_postgresql(arguments, read_only=read_only)
    address = cluster_address(arguments)
    if address is not None:
        return cluster_store(arguments, address)
    path = _path(arguments)
    if not path.exists():
        raise CommandFailed(f"there is no store at {path}")
    if not path.is_file():
        raise CommandFailed(f"{path} is not a store: it is not a file")
    # Imported here: the other verbs, and --help, do not need a database.
    from evento.state_store.sqlite import SqliteStateStore

    return SqliteStateStore(str(path), read_only=read_only)


def check_schema(arguments: argparse.Namespace) -> None:
    """Make sure that ``--store-schema`` stands beside a store that has schemas.

    :raises WrongUse: it does not.
    """
    if arguments.store_schema is not None and not _is_postgresql(arguments):
        raise WrongUse("--store-schema belongs to --store postgresql://...: other stores have no schemas")


def _is_postgresql(arguments: argparse.Namespace) -> bool:
    return arguments.store is not None and arguments.store.partition(":")[0] in _POSTGRESQL


def _open_postgresql(arguments: argparse.Namespace, *, read_only: bool) -> StateStore:
    try:
        from evento.state_store.postgres import PostgresStateStore
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise CommandFailed(str(error)) from None
    schema = _SCHEMA if arguments.store_schema is None else arguments.store_schema
    return PostgresStateStore(arguments.store, schema=schema, read_only=read_only, connections=1)


def _path(arguments: argparse.Namespace) -> Path:
    if arguments.store is not None:
        return _of_store(arguments.store)
    if arguments.server is not None:
        return _of_server(arguments.server, "--server")
    if server := os.environ.get("EVENTO_SERVER"):
        return _of_server(server, "$EVENTO_SERVER")
    raise WrongUse(f"which store? {_GIVE_ONE}")


def _of_store(url: str) -> Path:
    scheme, colon, path = url.partition(":")
    if not colon or scheme != "sqlite":
        raise WrongUse(
            f"--store takes sqlite:PATH, such as sqlite:shop.db, or postgresql://..., not {_without_secrets(url)!r}"
        )
    if not path or path.startswith("//"):
        raise WrongUse("--store sqlite: takes a plain path after the colon, such as sqlite:shop.db")
    return Path(path)


def _of_server(url: str, option: str) -> Path:
    scheme, colon, path = url.partition(":")
    if not colon or scheme != "embedded":
        raise WrongUse(
            f"{option} takes embedded:PATH, such as embedded:shop.db, or nats://HOST:3030, not "
            f"{_without_secrets(url)!r}"
        )
    if not path:
        raise WrongUse(f"{option} embedded: without a path is in memory, inside the bundle's process; {_GIVE_ONE}")
    return Path(path)


def _without_secrets(url: str) -> str:
    """Return what was meant as a URL as it may be shown: what may be a password is left out."""
    scheme, slashes, _ = url.partition("//")
    return f"{scheme}//..." if slashes else url
