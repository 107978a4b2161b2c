"""Bringing commits from the write-ahead log into the database file, beside the commits and not in them.

A passive checkpoint stops nobody, but under steady load it never gets to the end, so that SQLite cannot start the log
anew and it grows. Beyond a limit the writer itself, between two batches, copies the little that is left and starts it
anew (:meth:`~evento.state_store.sqlite.writer.Writer.run`).
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from evento.state_store.sqlite.worker import Worker

__all__ = ["Checkpoints", "checkpoint", "restart_log"]

_EVERY_BYTES = 16 * 1024 * 1024
_LOG_LIMIT = 16 * 1024 * 1024
_LOG_BYTES_AN_OPERATION = 4 * 1024  # an event touches a few pages of 4 KiB, most of them together with others
_RESTART_WAIT_MILLISECONDS = 100

_logger = logging.getLogger(__name__)


class Checkpoints:
    """A thread that checkpoints whenever enough was written; ``restart`` is called when the log is over its limit."""

    def __init__(self, open: Callable[[], sqlite3.Connection], restart: Callable[[], None]) -> None:
        self._worker = Worker("evento-checkpoint", open=open, run=_run)
        self._restart = restart
        self._grown = 0
        self._running: asyncio.Future[int] | None = None
        self._open = False

    async def __aenter__(self) -> Checkpoints:
        """Start the thread."""
        await self._worker.__aenter__()
        self._open = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """End the thread, after the checkpoint that is running."""
        self._open = False
        await self._worker.__aexit__()

    def wrote(self, operations: int, size: int) -> None:
        """Take notice of a committed batch; call it in the event loop."""
        self._grown += size + operations * _LOG_BYTES_AN_OPERATION
        if self._open and self._running is None and self._grown >= _EVERY_BYTES:
            self._grown = 0
            self._running = self._worker.submit(checkpoint)
            self._running.add_done_callback(self._ran)

    def _ran(self, future: asyncio.Future[int]) -> None:
        self._running = None
        if future.result() > _LOG_LIMIT:
            self._restart()


def checkpoint(connection: sqlite3.Connection) -> int:
    """Copy what readers and the writer let be copied; return the size of the log in bytes, as far as it is in use."""
    try:
        [_, frames, _] = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        [page_size] = connection.execute("PRAGMA page_size").fetchone()
    except sqlite3.Error as error:
        # Nothing is lost: the log stays and grows, and the next checkpoint tries again.
        _logger.warning("a checkpoint of the event store failed: %s", error)
        return 0
    return int(frames * page_size)


def restart_log(connection: sqlite3.Connection) -> None:
    """Checkpoint the rest and let the next commit start the log anew; gives up soon while readers need the old one."""
    [patience] = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute(f"PRAGMA busy_timeout = {_RESTART_WAIT_MILLISECONDS}")
    try:
        connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
    except sqlite3.Error as error:
        _logger.warning("starting the event store's log anew failed: %s", error)
    finally:
        connection.execute(f"PRAGMA busy_timeout = {patience}")


def _run(connection: sqlite3.Connection, operations: Sequence[Callable[[sqlite3.Connection], Any]]) -> Sequence[Any]:
    return [operation(connection) for operation in operations]
