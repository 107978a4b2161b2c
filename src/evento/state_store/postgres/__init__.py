"""The System State Store on PostgreSQL: one database, any number of server processes, group commit."""

try:
    import asyncpg  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "asyncpg":
        raise
    raise ModuleNotFoundError(
        "the event store on PostgreSQL needs the package 'asyncpg': pip install 'evento-framework[postgres]'",
        name="asyncpg",
    ) from None

from evento.state_store.postgres.store import PostgresStateStore

__all__ = ["PostgresStateStore"]
