"""Where tests find a PostgreSQL server."""

from evento.testing.postgres import PostgresMissing, PostgresServer, start_postgres

__all__ = ["PostgresMissing", "PostgresServer", "start_postgres"]
