"""Leased locks with fencing tokens, judged by the store's clock."""

from __future__ import annotations

import sqlite3

from evento.state_store.port import Lease

__all__ = ["end_all", "is_held", "lock", "renew", "shorten", "unlock"]

LONGEST_AFTER_OPENING = 60.0
"""Seconds that a lease may still last when the file is opened."""


def lock(
    connection: sqlite3.Connection, lock_id: str, owner: str, ttl: float, now: int, request: str | None
) -> Lease | None:
    """Grant the lock unless somebody holds it. Tokens rise for all locks together, so each lock's tokens rise too.

    The request that holds it is granted the same lease again: the answer to its first send was lost.
    """
    connection.execute("DELETE FROM locks WHERE lock_id = ? AND expires_at <= ?", (lock_id, now))
    held = connection.execute("SELECT token, request FROM locks WHERE lock_id = ?", (lock_id,)).fetchone()
    if held is not None:
        lease = Lease(lock_id, held[0])
        return lease if request is not None and held[1] == request and renew(connection, lease, ttl, now) else None
    connection.execute("UPDATE head SET token = token + 1")
    connection.execute(
        "INSERT INTO locks SELECT ?, token, ?, ?, ? FROM head", (lock_id, owner, now + _micros(ttl), request)
    )
    [token] = connection.execute("SELECT token FROM locks WHERE lock_id = ?", (lock_id,)).fetchone()
    return Lease(lock_id, token)


def renew(connection: sqlite3.Connection, lease: Lease, ttl: float, now: int) -> bool:
    """Let a lease that is still held last ``ttl`` seconds from now."""
    changed = connection.execute(
        "UPDATE locks SET expires_at = ? WHERE lock_id = ? AND token = ? AND expires_at > ?",
        (now + _micros(ttl), lease.lock_id, lease.token, now),
    )
    return changed.rowcount == 1


def unlock(connection: sqlite3.Connection, lease: Lease, now: int) -> bool:
    """Give a lock back; whether the lease was still held."""
    held = is_held(connection, lease, now)
    connection.execute("DELETE FROM locks WHERE lock_id = ? AND token = ?", (lease.lock_id, lease.token))
    return held


def end_all(connection: sqlite3.Connection) -> None:
    """End all leases; the tokens of later ones rise all the same."""
    connection.execute("DELETE FROM locks")


def shorten(connection: sqlite3.Connection, now: int) -> None:
    """Let no lease end much later than it should because the host's clock was set back while the file was closed.

    Its holder may renew it; one that is lost too early is refused by its token.
    """
    latest = now + _micros(LONGEST_AFTER_OPENING)
    connection.execute("UPDATE locks SET expires_at = ? WHERE expires_at > ?", (latest, latest))


def is_held(connection: sqlite3.Connection, lease: Lease, now: int) -> bool:
    """Whether the lease is neither expired nor given back nor granted to another."""
    row = connection.execute(
        "SELECT 1 FROM locks WHERE lock_id = ? AND token = ? AND expires_at > ?", (lease.lock_id, lease.token, now)
    ).fetchone()
    return row is not None


def _micros(seconds: float) -> int:
    return int(seconds * 1_000_000)
