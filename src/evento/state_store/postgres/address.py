"""The address of a database, and how people are told of it: never with the password."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from evento.errors import DefinitionError

__all__ = ["Address"]

_EXAMPLE = "postgresql://user:password@host:5432/database"


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """A ``postgresql://`` URL and the schema in that database; as text it is for people."""

    url: str
    schema: str

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        named = {name: values[-1] for name, values in parse_qs(parts.query).items()}  # where libpq takes them from too
        elsewhere = ":".join(named[name] for name in ("host", "port") if name in named)
        host = parts.netloc.rpartition("@")[2] or elsewhere or "localhost"
        database = unquote(parts.path.lstrip("/")) or named.get("dbname") or "the user's own database"
        return f"the event store in PostgreSQL at {host}, database {database}, schema {self.schema}"

    __repr__ = __str__

    def check(self) -> None:
        """Make sure that it can be an address.

        :raises DefinitionError: it cannot.
        """
        try:
            parts = urlsplit(self.url)
            fits = self.url.startswith(("postgresql://", "postgres://")) and (not parts.port or parts.port > 0)
        except ValueError:  # such as a port that is no number; its text may hold the password
            fits = False
        if not fits:
            raise DefinitionError(f"this is no address of a PostgreSQL database: write it like {_EXAMPLE}")
        if not self.schema or "\0" in self.schema or len(self.schema.encode()) > 63:
            raise DefinitionError(f"schema={self.schema!r} is no name of a schema: give 1 to 63 bytes")
