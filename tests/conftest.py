"""What holds for all tests."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TypeVar

import asyncpg
import pytest
from hypothesis import settings
from mariadb_server import MariadbMissing, MariadbServer, start_mariadb
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from evento.testing.postgres import PostgresMissing, PostgresServer, start_postgres

# A shell that starts the tests in the background has SIGINT ignored, also for the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example may take depends on what else the machine does.
settings.register_profile("evento", deadline=None)
settings.load_profile("evento")

_numbers = count(1)
_Server = TypeVar("_Server")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Give a PostgreSQL server that the test run has started."""
    with _folder("postgres") as folder:
        server = _started(start_postgres, folder)
        try:
            yield server
        finally:
            server.stop(signal.SIGQUIT)  # a crash: nobody needs what it would flush for many seconds


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariadbServer]:
    """Give a MariaDB server that the test run has started."""
    with _folder("mariadb") as folder:
        server = _started(start_mariadb, folder)
        try:
            yield server
        finally:
            server.stop(signal.SIGKILL)


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    # Not pytest's own folder: as root, the server runs as another user, who may not enter that one.
    with tempfile.TemporaryDirectory(prefix=f"evento-{name}-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def _started(start: Callable[[Path], _Server], folder: Path) -> _Server:
    try:
        return start(folder)
    except (PostgresMissing, MariadbMissing) as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture
def postgres_schema() -> str:
    """Give the name of a schema that no other test uses."""
    return f"test_{os.getpid()}_{next(_numbers)}"


@pytest.fixture
async def postgres_database(postgres: PostgresServer) -> str:
    """The URL of a database on PostgreSQL that holds nothing."""
    admin = await asyncpg.connect(postgres.url)
    await admin.execute("DROP SCHEMA IF EXISTS public CASCADE; CREATE SCHEMA public")
    await admin.close()
    return postgres.url.replace("postgresql", "postgresql+asyncpg")


@pytest.fixture
async def mariadb_database(mariadb: MariadbServer) -> str:
    """The URL of a database on MariaDB that holds nothing."""
    admin = create_async_engine(mariadb.url)
    async with admin.begin() as connection:
        # Defaults that the store must not rely on.
        await connection.execute(text("CREATE OR REPLACE DATABASE consumers CHARACTER SET latin1"))
    await admin.dispose()
    return mariadb.url + "consumers"


@pytest.fixture(params=["postgres", "mariadb"])
def database(request: pytest.FixtureRequest) -> str:
    """The URL of a database that holds nothing, on PostgreSQL and on MariaDB."""
    return str(request.getfixturevalue(f"{request.param}_database"))
