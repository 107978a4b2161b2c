"""The tables, all named ``evento_consumer...``: the database may be the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    false,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.dialects.mysql import VARCHAR

from evento.consumers.sqlalchemy_store.damage import AnyFlag, AnyText
from evento.consumers.sqlalchemy_store.exact_text import ExactText
from evento.errors import SchemaTooNew, StoreUnavailable

__all__ = [
    "SCHEMA_VERSION",
    "check_schema",
    "consumers",
    "dead_events",
    "directions",
    "finished_events",
    "migrate",
    "saga_associations",
    "sagas",
]

SCHEMA_VERSION = 4

_metadata = MetaData()
# MySQL indexes at most 3072 bytes: 3 x 240 x 4, a number and a digest.
_NAME = String(240).with_variant(ExactText(240), "mysql", "mariadb")
_TEXT = Text().with_variant(ExactText(), "mysql", "mariadb").with_variant(AnyText(), "sqlite")
_FLAG = Boolean().with_variant(AnyFlag(), "sqlite")


def _table(name: str, *columns: Column[Any]) -> Table:
    # Whatever the defaults are: only InnoDB has transactions, and only this format has room for our keys.
    options = {"engine": "InnoDB", "row_format": "DYNAMIC"}
    mysql: dict[str, Any] = {
        f"{dialect}_{option}": value for dialect in ("mysql", "mariadb") for option, value in options.items()
    }
    return Table(name, _metadata, *columns, **mysql)


def _identity() -> list[Column[Any]]:
    return [
        Column("bundle", _NAME, primary_key=True),
        Column("component", _NAME, primary_key=True),
        Column("version", Integer, primary_key=True, autoincrement=False),
        Column("context", _NAME, primary_key=True),
    ]


schema_version = _table("evento_consumer_schema", Column("version", Integer, primary_key=True, autoincrement=False))

consumers = _table(
    "evento_consumer",
    *_identity(),
    Column("position", BigInteger, nullable=False),
    Column("store_id", String(64), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("lease_owner", _TEXT),
    Column("lease_token", BigInteger, nullable=False, default=0),
    Column("lease_until", BigInteger),
    Column("errors", Integer, nullable=False, default=0),
    Column("last_error", _TEXT),
    Column("failing_since", BigInteger),
    Column("dead_streak", Integer, nullable=False, default=0),
)

dead_events = _table(
    "evento_consumer_dead_event",
    *_identity(),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", _TEXT, nullable=False),
    Column("event_name", _TEXT, nullable=False),
    Column("event_context", _TEXT, nullable=False),
    Column("aggregate_id", _TEXT),
    Column("held_key", _TEXT),
    Column("waiting", _FLAG, nullable=False),
    Column("error_type", _TEXT, nullable=False),
    Column("error_message", _TEXT, nullable=False),
    Column("traceback", _TEXT, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("parked_at", BigInteger, nullable=False),
    Column("retry", _FLAG, nullable=False, server_default=false()),
)

# Ids and digests are ASCII: the primary key of four names and one of these stays within the limit of MySQL.
_DIGEST = (
    String(64)
    .with_variant(VARCHAR(64, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
    .with_variant(AnyText(), "sqlite")
)

sagas = _table(
    "evento_consumer_saga",
    *_identity(),
    Column("saga_id", _DIGEST, primary_key=True),
    Column("state", _TEXT, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
)

saga_associations = _table(
    "evento_consumer_saga_association",
    *_identity(),
    Column("digest", _DIGEST, primary_key=True),  # of the association, which may be too long for an index
    Column("association", _TEXT, nullable=False),
    Column("saga_id", _DIGEST, nullable=False),
)

finished_events = _table(
    "evento_consumer_finished_event",
    *_identity(),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
)


def _add_sagas(connection: Connection) -> None:
    _metadata.create_all(connection, tables=[sagas, saga_associations])


def _add_finished_events(connection: Connection) -> None:
    _metadata.create_all(connection, tables=[finished_events])


# A table of its own: directions may be given before the consumer is registered, and never wait for its checkpoints.
directions = _table(
    "evento_consumer_directions",
    *_identity(),
    Column("revision", BigInteger, nullable=False),
    Column("paused", _FLAG, nullable=False),
)


def _add_directions(connection: Connection) -> None:
    if "retry" not in {column["name"] for column in inspect(connection).get_columns(dead_events.name)}:
        column = "retry BOOLEAN NOT NULL DEFAULT FALSE"
        connection.execute(text(f"ALTER TABLE evento_consumer_dead_event ADD COLUMN {column}"))
    directions.create(connection, checkfirst=True)


MIGRATIONS: Mapping[int, Callable[[Connection], None]] = {2: _add_sagas, 3: _add_finished_events, 4: _add_directions}
"""What turns the schema of version n - 1 into that of version n. A new database gets the tables above at once.

Each may find its work done already: MySQL commits every change of a table by itself, so a crash leaves it in between.
"""


def migrate(connection: Connection, where: str) -> None:
    """Bring the database to :data:`SCHEMA_VERSION`; :class:`SchemaTooNew` when it is ahead of it."""
    schema_version.create(connection, checkfirst=True)
    found = connection.scalar(select(schema_version.c.version))
    if found is None:
        _metadata.create_all(connection)
        connection.execute(insert(schema_version).values(version=SCHEMA_VERSION))
        return
    _refuse_newer(found, where)
    for version in range(found + 1, SCHEMA_VERSION + 1):
        MIGRATIONS[version](connection)
    # Also when it is the same: a database that cannot be written shows now, and not at the first checkpoint.
    connection.execute(schema_version.update().values(version=SCHEMA_VERSION))


def check_schema(connection: Connection, where: str) -> None:
    """Raise unless the database is at :data:`SCHEMA_VERSION`; nothing is changed."""
    found = None
    if inspect(connection).has_table(schema_version.name):
        found = connection.scalar(select(schema_version.c.version))
    if found is None:
        raise StoreUnavailable(f"there is no consumer state in {where}: a bundle makes it at its first start")
    _refuse_newer(found, where)
    if found < SCHEMA_VERSION:
        raise StoreUnavailable(
            f"the consumer state in {where} has schema version {found}, and this Evento works with {SCHEMA_VERSION}: "
            "start the bundle with this version of Evento once, or use the command of the bundle's version"
        )


def _refuse_newer(found: int, where: str) -> None:
    if found > SCHEMA_VERSION:
        raise SchemaTooNew(
            f"the consumer state in {where} has schema version {found}, but this Evento knows versions up to "
            f"{SCHEMA_VERSION}: install the newer Evento that wrote it",
            found=found,
            supported=SCHEMA_VERSION,
        )
