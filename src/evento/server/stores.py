"""Which System State Store a server opens."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager
from importlib.util import find_spec
from pathlib import Path

from evento.errors import StoreUnavailable
from evento.server.errors import ServerError
from evento.server.private_files import make_folder
from evento.server.registry import probe_tables
from evento.server.settings import ServerSettings
from evento.state_store import StateStore
from evento.state_store.sqlite import SqliteStateStore

__all__ = ["open_store", "probe_registry", "probe_store", "registry_address"]


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


def registry_address(settings: ServerSettings) -> tuple[str, str | None]:
    """Return the URL of the registry and the schema there: beside the store's tables, or in a file of its own."""
    if settings.store_url.startswith("sqlite:"):
        return f"sqlite+aiosqlite:///{_registry_file(settings)}", None
    return settings.store_url, settings.store_schema


async def probe_registry(settings: ServerSettings) -> str:
    """Return in words how the registry is, without changing it.

    :raises SchemaTooNew: a newer Evento wrote it.
    :raises StoreUnavailable: it cannot be reached or read.
    :raises ServerError: its file could not be made.
    """
    url, schema = registry_address(settings)
    if schema is None and (told := _unmade(_registry_file(settings))) is not None:
        return told
    return await probe_tables(url, schema=schema)


def _registry_file(settings: ServerSettings) -> Path:
    return (settings.data / "registry.db").absolute()


def _unmade(path: Path) -> str | None:
    """Return what will become of a file that does not exist; None when it does."""
    if path.exists():
        return None
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ServerError(f"{path} cannot be made: {folder} is not writable")
    return f"{path} will be made at the first start"
