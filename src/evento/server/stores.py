"""Which System State Store a server opens."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager
from importlib.util import find_spec
from pathlib import Path

from evento.errors import StoreUnavailable
from evento.server.errors import ServerError
from evento.server.private_files import make_folder
from evento.server.settings import ServerSettings
from evento.state_store import StateStore
from evento.state_store.sqlite import SqliteStateStore

__all__ = ["open_store", "probe_store", "registry_url"]


def open_store(settings: ServerSettings, *, read_only: bool = False) -> AbstractAsyncContextManager[StateStore]:
    """Return the store that the settings name; it is opened by ``async with``.

    :raises ServerError: a package that it needs is missing.
    """
    scheme, _, rest = settings.store_url.partition(":")
    if scheme == "sqlite":
        path = Path(rest)
        if not read_only:
            make_folder(path.parent)
        return SqliteStateStore(path, read_only=read_only, keep_leases=not read_only)
    if find_spec("asyncpg") is None:
        raise ServerError("the store is in PostgreSQL: pip install 'evento-framework[postgres]'")
    from evento.state_store.postgres import PostgresStateStore

    store: AbstractAsyncContextManager[StateStore] = PostgresStateStore(
        settings.store_url, schema=settings.store_schema, read_only=read_only
    )
    return store


async def probe_store(settings: ServerSettings) -> str:
    """Return in words how the store is, without changing it.

    :raises StoreUnavailable: it cannot be reached or read.
    :raises ServerError: its file could not be made.
    """
    scheme, _, rest = settings.store_url.partition(":")
    if scheme == "sqlite" and (told := _unmade(Path(rest))) is not None:
        return told
    try:
        async with open_store(settings, read_only=True) as store:
            info = await store.info()
    except StoreUnavailable as error:
        if error.data.get("missing"):
            return f"{error}".partition(": ")[0] + " yet: it will be made at the first start"
        raise
    return f"{info.location}: {info.events:,} events"


_QUERY = ("sslmode", "ssl")


def registry_url(settings: ServerSettings) -> str:
    """Return where the registry is, as SQLAlchemy writes it: beside the store's tables, or in a file of its own."""
    scheme, _, rest = settings.store_url.partition(":")
    if scheme == "sqlite":
        return f"sqlite+aiosqlite:///{(settings.data / 'registry.db').absolute()}"
    where, _, query = rest.partition("?")
    # What libpq calls sslmode, SQLAlchemy's asyncpg calls ssl; it takes none of libpq's other parameters.
    known = [pair.replace("sslmode=", "ssl=") for pair in query.split("&") if pair.partition("=")[0] in _QUERY]
    return f"postgresql+asyncpg:{where}" + (f"?{'&'.join(known)}" if known else "")


def _unmade(path: Path) -> str | None:
    """Return what will become of a file that does not exist; None when it does."""
    if path.exists():
        return None
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ServerError(f"the store {path} cannot be made: {folder} is not writable")
    return f"{path} will be made at the first start"
