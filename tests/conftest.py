"""What holds for all tests."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from postgres_server import PostgresMissing, PostgresServer, start_postgres

# A shell that starts the tests in the background has SIGINT ignored, also for the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

_numbers = count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Give a PostgreSQL server that the test run has started."""
    # Not pytest's own folder: as root, the server runs as another user, who may not enter that one.
    with tempfile.TemporaryDirectory(prefix="evento-postgres-") as folder:
        Path(folder).chmod(0o755)
        try:
            server = start_postgres(Path(folder))
        except PostgresMissing as error:
            if os.environ.get("CI") == "true":
                pytest.fail(str(error))
            pytest.skip(str(error))
        try:
            yield server
        finally:
            server.stop(signal.SIGQUIT)  # a crash: nobody needs what it would flush for many seconds


@pytest.fixture
def postgres_schema() -> str:
    """Give the name of a schema that no other test uses."""
    return f"test_{os.getpid()}_{next(_numbers)}"
