"""Where everything of a cluster under test is: what each of its processes is told."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

__all__ = ["CLUSTER", "Site"]

CLUSTER = "chaos"


class Site(msgspec.Struct, frozen=True):
    """The same for all processes but for the gateway, which each role reaches by a way of its own.

    :param folder: of the files.
    :param gateway: the addresses of NATS, with commas between.
    :param database: the URL of PostgreSQL; empty: SQLite files in the folder.
    :param lease: seconds that an instance lives without a heartbeat, and that a lock is held without a renewal.
    """

    folder: str
    gateway: str
    database: str = ""
    lease: float = 1.0

    @property
    def gateways(self) -> list[str]:
        """The addresses of NATS."""
        return self.gateway.split(",")

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

    @property
    def consumers(self) -> str:
        """The URL of the database of the consumers."""
        if self.database:
            return self.database.replace("postgresql:", "postgresql+asyncpg:")
        return f"sqlite+aiosqlite:///{Path(self.folder) / 'consumers.db'}"

    @property
    def is_locked(self) -> bool:
        """Whether a process that stands still holds the lock of the consumers' SQLite file."""
        if self.database:
            return False
        with closing(sqlite3.connect(Path(self.folder) / "consumers.db", timeout=0.2, isolation_level=None)) as file:
            try:
                file.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            return False
