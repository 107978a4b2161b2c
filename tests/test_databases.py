"""What is said of the URLs of databases, and which errors are outages."""

from __future__ import annotations

import traceback

import asyncmy.errors
import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError

from evento.databases import is_outage, make_engine
from evento.errors import DefinitionError


def of_mysql(number: int, state: str) -> OperationalError:
    """Return the error as SQLAlchemy raises it."""
    error = asyncmy.errors.OperationalError(number, "no")
    error.sqlstate = state
    return OperationalError("SELECT 1", {}, error)


def of_postgresql(error: type[asyncpg.PostgresError], kind: type[DBAPIError] = DBAPIError) -> DBAPIError:
    """Return the error as SQLAlchemy raises it."""
    return kind("SELECT 1", {}, error("no"))


@pytest.mark.parametrize(
    "error",
    [
        of_mysql(1213, "40001"),  # deadlock
        of_mysql(1205, "HY000"),  # lock wait timeout
        of_mysql(1040, "08004"),  # too many connections
        of_mysql(1203, "42000"),  # too many connections of this user
        of_mysql(1290, "HY000"),  # --read-only
        of_mysql(1049, "42000"),  # unknown database
        of_mysql(2013, "HY000"),  # lost connection
        of_mysql(1114, "HY000"),  # table is full
        of_postgresql(asyncpg.DeadlockDetectedError),
        of_postgresql(asyncpg.SerializationError),
        of_postgresql(asyncpg.LockNotAvailableError),
        of_postgresql(asyncpg.TooManyConnectionsError),
        of_postgresql(asyncpg.CannotConnectNowError),
        of_postgresql(asyncpg.AdminShutdownError),
        of_postgresql(asyncpg.DiskFullError),
        of_postgresql(asyncpg.ReadOnlySQLTransactionError),
        OperationalError("SELECT 1", {}, Exception("no code")),
        ProgrammingError("SELECT 1", {}, Exception("gone"), connection_invalidated=True),
    ],
    ids=lambda error: str(error.orig),
)
def test_outages(error: DBAPIError) -> None:
    assert is_outage(error)


@pytest.mark.parametrize(
    "error",
    [
        of_mysql(1054, "42S22"),  # unknown column
        of_mysql(4025, "23000"),  # check violated, of MariaDB
        of_mysql(3819, "HY000"),  # check violated, of MySQL
        of_mysql(1365, "22012"),  # division by zero
        of_mysql(1644, "45000"),  # a trigger's SIGNAL
        of_postgresql(asyncpg.DivisionByZeroError),
        of_postgresql(asyncpg.UndefinedColumnError, ProgrammingError),
        of_postgresql(asyncpg.UniqueViolationError, IntegrityError),
        of_postgresql(asyncpg.RaiseError),
        DBAPIError("SELECT 1", {}, Exception("no code")),
    ],
    ids=lambda error: str(error.orig),
)
def test_defects(error: DBAPIError) -> None:
    assert not is_outage(error)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg//evento:s3cret@db/shop",  # no colon
        "postgresql+asyncpg://evento:s3cret/shop",  # no host: taken for a port
        "postgresql+asyncpg://evento:s3cret@db:54x2/shop",
        "postgresql+asyncpg://evento:p@s3cret@db/shop",
        "oracle://evento:s3cret@db/shop",
        "mysql+nosuchdriver://evento:s3cret@db/shop",
        "postgresql+psycopg2://evento@db/shop?password=s3cret",
    ],
)
def test_a_wrong_url_is_refused_without_a_word_of_its_password(url: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        make_engine(url, timeout=1)
    assert "s3cret" not in "".join(traceback.format_exception(refused.value))


def test_a_url_that_can_hold_no_password_is_repeated() -> None:
    with pytest.raises(DefinitionError, match=r"^store='shop\.db' is no SQLAlchemy URL: write it like sqlite"):
        make_engine("shop.db", timeout=1, option="store")


@pytest.mark.parametrize(
    ("url", "key"),
    [("postgresql+asyncpg://ann@db/shop", "password"), ("mysql://ann@db/shop", "passwd"), ("mysql://db/", "password")],
)
def test_a_password_in_the_query_is_hidden_and_used(url: str, key: str) -> None:
    engine = make_engine(f"{url}?{key}=s3cret", timeout=1)
    assert "s3cret" not in engine.url.render_as_string(hide_password=True)
    assert engine.url.password == "s3cret"
