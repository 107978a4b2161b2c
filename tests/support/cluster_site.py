"""Where everything of a cluster under test is: what each of its processes is told."""

from __future__ import annotations

from pathlib import Path

import msgspec

__all__ = ["CLUSTER", "Site"]

CLUSTER = "chaos"


class Site(msgspec.Struct, frozen=True):
    """The same for all processes but for the gateway, which each role reaches by a way of its own.

    :param folder: of the files.
    :param gateway: the address of NATS.
    :param database: the URL of PostgreSQL; empty: SQLite files in the folder.
    :param lease: seconds that an instance lives without a heartbeat, and that a lock is held without a renewal.
    :param consumers: the URL of the database of the consumers; empty: a file in the folder.
    """

    folder: str
    gateway: str
    database: str = ""
    lease: float = 1.0
    consumers: str = ""

    @property
    def events(self) -> Path:
        """The file of the event store on SQLite."""
        return Path(self.folder) / "events.db"

    @property
    def journal(self) -> Path:
        """What the callers were told."""
        return Path(self.folder) / "journal"

    @property
    def tail(self) -> Path:
        """What the tailing reader has seen, a line for each event."""
        return Path(self.folder) / "tail"
