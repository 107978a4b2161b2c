"""The registry's tables, all named ``evento_registry...``: they may stand in the database of the event store."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Connection, Integer, MetaData, String, Table, Text, insert, select

from evento.errors import SchemaTooNew

__all__ = ["MAX_NAME", "SCHEMA_VERSION", "bundles", "check_version", "instances", "migrate", "names"]

SCHEMA_VERSION = 1
MAX_NAME = 240
"""Characters of a bundle id, an instance id, the name of a command or query."""

_metadata = MetaData()

schema_version = Table(
    "evento_registry_schema", _metadata, Column("version", Integer, primary_key=True, autoincrement=False)
)

bundles = Table(
    "evento_registry_bundle",
    _metadata,
    Column("cluster", String(MAX_NAME), primary_key=True),
    Column("bundle", String(MAX_NAME), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("description", Text, nullable=False),  # JSON of the BundleDescription
    Column("updated_at", BigInteger, nullable=False),
)

instances = Table(
    "evento_registry_instance",
    _metadata,
    Column("cluster", String(MAX_NAME), primary_key=True),
    Column("instance", String(MAX_NAME), primary_key=True),
    Column("bundle", String(MAX_NAME), nullable=False),
    Column("version", Integer, nullable=False),
    Column("session", BigInteger, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("beat_at", BigInteger, nullable=False),
    Column("lease_until", BigInteger, nullable=False, index=True),
    Column("names", Text, nullable=False),  # JSON: the commands and queries that it handles
    Column("host", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("server", Text, nullable=False),
)

# The primary key decides between two servers that register two bundles for one name in the same moment.
names = Table(
    "evento_registry_name",
    _metadata,
    Column("cluster", String(MAX_NAME), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("name", String(MAX_NAME), primary_key=True),
    Column("bundle", String(MAX_NAME), nullable=False),
)


def migrate(connection: Connection, where: str) -> None:
    """Bring the tables to :data:`SCHEMA_VERSION`; :class:`SchemaTooNew` when they are ahead of it."""
    schema_version.create(connection, checkfirst=True)
    found = connection.scalar(select(schema_version.c.version))
    if found is None:
        _metadata.create_all(connection)
        connection.execute(insert(schema_version).values(version=SCHEMA_VERSION))
        return
    check_version(found, where)
    connection.execute(schema_version.update().values(version=SCHEMA_VERSION))


def check_version(found: int | None, where: str) -> None:
    """Raise :class:`SchemaTooNew` when tables of a version are ahead of :data:`SCHEMA_VERSION`."""
    if found is not None and found > SCHEMA_VERSION:
        raise SchemaTooNew(
            f"the registry in {where} has schema version {found}, but this Evento knows versions up to "
            f"{SCHEMA_VERSION}: install the newer Evento that wrote it",
            found=found,
            supported=SCHEMA_VERSION,
        )
