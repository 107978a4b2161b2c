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

import pytest
from mariadb_server import MariadbMissing, MariadbServer, start_mariadb
from postgres_server import PostgresMissing, PostgresServer, start_postgres

# A shell that starts the tests in the background has SIGINT ignored, also for the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

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
