"""The address of a database, and how people are told of it: never with the password."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from evento.errors import DefinitionError

__all__ = ["Address"]

_EXAMPLE = "postgresql://user:password@host:5432/database, with / # ? @ in a password as %2F %23 %3F %40"


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """A ``postgresql://`` URL and the schema in that database; as text it is for people."""

    url: str
    schema: str

    def __str__(self) -> str:
        parts = self._parts()
        if parts is None:  # its pieces are not what they seem: any may be of the password
            return f"the event store in PostgreSQL at a malformed address, schema {self.schema}"
        named = {name: values[-1] for name, values in parse_qs(parts.query).items()}  # where libpq takes them from too
        host = parts.hostname or named.get("host") or "localhost"
        place = f"[{host}]" if ":" in host else host
        port = parts.port or named.get("port")
        where = f"{place}:{port}" if port else place
        database = unquote(parts.path.lstrip("/")) or named.get("dbname") or "the user's own database"
        return f"the event store in PostgreSQL at {where}, database {database}, schema {self.schema}"

    __repr__ = __str__

    def check(self) -> None:
        """Make sure that it can be an address.

        :raises DefinitionError: it cannot.
        """
        if self._parts() is None:
            raise DefinitionError(f"this is no address of a PostgreSQL database: write it like {_EXAMPLE}")
        if not self.schema or "\0" in self.schema or len(self.schema.encode()) > 63:
            raise DefinitionError(f"schema={self.schema!r} is no name of a schema: give 1 to 63 bytes")

    def _parts(self) -> SplitResult | None:
        """Return the URL's parts; None for what is no address, and for one cut in the middle of its password."""
        try:
            parts = urlsplit(self.url)
            fits = self.url.startswith(("postgresql://", "postgres://")) and (not parts.port or parts.port > 0)
        except ValueError:  # such as a port that is no number
            return None
        return None if not fits or "@" in parts.path + parts.query + parts.fragment else parts
