"""The ``server`` of a bundle: where its System State Store and message gateway are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from evento.errors import DefinitionError

__all__ = ["EmbeddedServer", "parse_server"]


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A store and a gateway inside the bundle's process; ``path`` None: in memory."""

    path: Path | None

    @property
    def consumer_state_url(self) -> str:
        """The SQLAlchemy URL of the default consumer state store: a second file beside the event store."""
        if self.path is None:
            return "sqlite+aiosqlite://"
        return f"sqlite+aiosqlite:///{self.path}-consumers"

    def refuse_as_consumer_state(self, url: str | None) -> None:
        """Raise :class:`DefinitionError` when consumer state is to live in the event store's own file.

        A handler's transaction there would wait for the append that waits for it.
        """
        if url is None or self.path is None or not url.startswith("sqlite"):
            return
        database = url.partition(":///")[2].partition("?")[0]
        if database and Path(database).resolve() == self.path.resolve():
            raise DefinitionError(
                f"consumer_state_store={url!r} is the event store's own file: give it another, such as the read model's"
            )


def parse_server(server: str | None) -> EmbeddedServer:
    """Parse ``server=``; None means ``$EVENTO_SERVER``, else ``embedded:``.

    :raises DefinitionError: the text is no address that this version can use.
    """
    text = server if server is not None else os.environ.get("EVENTO_SERVER") or "embedded:"
    scheme, separator, rest = text.partition(":")
    if scheme == "embedded" and separator:
        return EmbeddedServer(Path(rest).absolute() if rest else None)
    if scheme == "nats":
        raise DefinitionError(
            f"server={text!r}: the distributed gateway is not part of this version yet; use 'embedded:FILE'"
        )
    raise DefinitionError(f"server={text!r} is no address: use 'embedded:FILE', or 'embedded:' for a store in memory")
