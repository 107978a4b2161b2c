"""Writing snapshots: the newest of each fingerprint, two fingerprints an aggregate."""

from __future__ import annotations

import sqlite3

from evento.state_store.port import Snapshot

__all__ = ["write"]

_FINGERPRINTS_KEPT = 2


def write(connection: sqlite3.Connection, snapshot: Snapshot, now: int) -> bool:
    """Keep a snapshot, unless it is older than the kept one or its aggregate is deleted or not that far."""
    stream = connection.execute(
        "SELECT 1 FROM streams WHERE aggregate_id = ? AND deleted_at IS NULL AND version >= ?",
        (snapshot.aggregate_id, snapshot.version),
    ).fetchone()
    newer = connection.execute(
        "SELECT 1 FROM snapshots WHERE aggregate_id = ? AND fingerprint = ? AND version > ?",
        (snapshot.aggregate_id, snapshot.fingerprint, snapshot.version),
    ).fetchone()
    if newer or not stream:
        return False
    # A replaced row gets a new number, so `written` tells the order of writing whatever the clock says.
    connection.execute(
        "INSERT OR REPLACE INTO snapshots (aggregate_id, fingerprint, version, state, updated_at) "
        "VALUES (?, ?, ?, ?, ?)",
        (snapshot.aggregate_id, snapshot.fingerprint, snapshot.version, snapshot.state.decode(), now),
    )
    connection.execute(
        "DELETE FROM snapshots WHERE written IN "
        "(SELECT written FROM snapshots WHERE aggregate_id = ? ORDER BY written DESC LIMIT -1 OFFSET ?)",
        (snapshot.aggregate_id, _FINGERPRINTS_KEPT),
    )
    return True
