"""The one writer: it owns the connection that writes, runs each batch as one transaction, and keeps the WAL short."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias, cast

from evento.state_store.port import Append, Appended
from evento.state_store.sqlite import batch, failures, locks, reader, schema
from evento.state_store.sqlite.checkpoints import restart_log
from evento.state_store.sqlite.connections import open_memory, open_writer
from evento.state_store.sqlite.filelock import FileLock

__all__ = ["Operation", "Writer"]

_CLOSING_WAIT_MILLISECONDS = 500
Operation: TypeAlias = Callable[[sqlite3.Connection, int], Any]
"""What runs on a connection, inside a transaction, and is told the store's time; writes in the order of the appends."""


class Writer:
    """The writing connection with its file lock, and the head as of the last commit.

    ``path`` None is a database in memory. ``clock`` gives the store's time in microseconds since 1970.
    """

    def __init__(self, path: Path | None, *, lock: bool, keep_leases: bool, clock: Callable[[], int]) -> None:
        self._location = str(path) if path is not None else "the event store in memory"
        self._clock = clock
        self._lock: FileLock | None = None
        self._restart_log = False
        try:
            if path is None:
                self._db = open_memory()
            else:
                schema.inspect(path)
                if lock:
                    self._lock = FileLock(path)
                self._db = open_writer(path)
        except BaseException as error:
            self._unlock()
            raise failures.translated(error, self._location) from error
        try:
            schema.migrate(self._db, self._location)
            if keep_leases:
                locks.shorten(self._db, clock())
            elif self._lock is not None:
                locks.end_all(self._db)  # nobody else has the file, so who held a lease is dead
            self.identity = schema.identity(self._db)
            self.head = reader.head(self._db)
        except BaseException as error:
            self.close()
            raise failures.translated(error, self._location) from error

    def close(self) -> None:
        """Bring the whole WAL into the database, and let it go."""
        with suppress(sqlite3.Error):  # then the WAL stays, and the next start reads it
            self._db.execute(f"PRAGMA busy_timeout = {_CLOSING_WAIT_MILLISECONDS}")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._db.close()
        self._unlock()

    def restart_log(self) -> None:
        """Ask for the log to be started anew before the next batch; called from another thread."""
        self._restart_log = True

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def run(self, operations: Sequence[Append | Operation]) -> Sequence[Any]:
        """Run a batch as one transaction and return its outcomes after the commit.

        Data that cannot be stored makes the batch run again in halves, until only the offender fails.
        """
        if self._restart_log:
            self._restart_log = False
            restart_log(self._db)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            outcomes, head = self._apply(operations)
        except Exception as error:
            self._roll_back()
            if isinstance(error, sqlite3.Error) and not failures.is_bad_data(error):
                return [failures.unavailable(error, self._location) for _ in operations]
            if len(operations) == 1:
                return [failures.bad_data(error) if failures.is_bad_data(error) else error]
            half = len(operations) // 2
            return [*self.run(operations[:half]), *self.run(operations[half:])]
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            if failures.undone_at_commit(error):
                return [failures.unavailable(error, self._location) for _ in operations]
            if not self._is_stored(outcomes):
                return [failures.unavailable(error, self._location, definite=False) for _ in operations]
        self.head = head
        return outcomes

    def _apply(self, operations: Sequence[Append | Operation]) -> tuple[list[Any], int]:
        outcomes: list[Any] = []
        head = self.head
        now = self._clock()
        for is_append, group in groupby(operations, lambda operation: isinstance(operation, Append)):
            if is_append:
                stored, head = batch.store(self._db, cast("list[Append]", list(group)), now)
                outcomes += stored
            else:
                outcomes += [operation(self._db, now) for operation in cast("Iterator[Operation]", group)]
        return outcomes, head

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def _is_stored(self, outcomes: Sequence[Any]) -> bool:
        """Whether a batch whose COMMIT failed is there all the same: its last event says it for all."""
        stored = [outcome.record for outcome in outcomes if isinstance(outcome, Appended)]
        try:
            found = reader.event(self._db, stored[-1].position) if stored else None
        except sqlite3.Error:
            return False
        return found is not None and found.event_id == stored[-1].event_id
