"""Single operations: outcomes of command ids, leased locks, snapshots. Each is one statement."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from evento.errors import ErrorData
from evento.messages import EventRecord
from evento.state_store.port import MAX_TOMBSTONE_SECONDS, AlreadyStored, Lease, LookupResult, Refused, Snapshot
from evento.state_store.postgres.connections import Connection
from evento.state_store.postgres.records import selected

__all__ = ["lock", "lookup", "outcomes", "refused", "reject", "renew", "snapshot", "unlock"]

_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_OUTCOMES = f"""
SELECT w.id, c.name, c.aggregate_id, c.error, c.command_id IS NOT NULL, {selected("e")}
FROM unnest($1::text[]) AS w(id)
LEFT JOIN events AS e ON e.command_id = w.id
LEFT JOIN closed_commands AS c
  ON c.command_id = w.id AND e.position IS NULL AND (c.expires_at IS NULL OR c.expires_at > {_NOW})
"""
_OUTCOME_FIELDS = 5
_REJECT = "SELECT outcome, known_error FROM reject_command($1, $2, $3, $4)"
# Asked for again by the same request, because its answer was lost, it is the same lease: the answer may come after all.
_LOCK = f"""
INSERT INTO locks AS l VALUES ($1, nextval('lock_tokens'), $2, $3, {_NOW} + $4)
ON CONFLICT (lock_id) DO UPDATE SET
  token = CASE WHEN l.request = excluded.request THEN l.token ELSE excluded.token END,
  owner = excluded.owner, request = excluded.request, expires_at = excluded.expires_at
WHERE l.expires_at <= {_NOW} OR l.request = excluded.request
RETURNING token
"""
_RENEW = f"""
UPDATE locks SET expires_at = {_NOW} + $3 WHERE lock_id = $1 AND token = $2 AND expires_at > {_NOW} RETURNING true
"""
_UNLOCK = f"DELETE FROM locks WHERE lock_id = $1 AND token = $2 RETURNING expires_at > {_NOW}"
_SNAPSHOT = "SELECT write_snapshot($1, $2, $3, $4)"


async def lookup(connection: Connection, command_id: str) -> LookupResult:
    """Return the outcome of a command id, None when there is none."""
    return (await outcomes(connection, [command_id])).get(command_id)


async def outcomes(connection: Connection, command_ids: Sequence[str]) -> dict[str, AlreadyStored | Refused]:
    """Return the outcomes of those command ids that have one."""
    found: dict[str, AlreadyStored | Refused] = {}
    for row in await connection.fetch(_OUTCOMES, command_ids):
        command_id, name, aggregate_id, error, is_closed = row[:_OUTCOME_FIELDS]
        if not is_closed:
            if row[_OUTCOME_FIELDS] is not None:
                record = EventRecord(*row[_OUTCOME_FIELDS:])
                found[command_id] = AlreadyStored(record, record.name, record.aggregate_id)
        elif error is not None:
            found[command_id] = refused(command_id, error)
        else:
            found[command_id] = AlreadyStored(None, name, aggregate_id)
    return found


def refused(command_id: str, stored: str) -> Refused:
    """Return the refusal of a tombstone."""
    try:
        return Refused(msgspec.json.decode(stored, type=ErrorData))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # damaged, but a refusal all the same
        message = f"command {command_id} was refused, but its stored error cannot be read: {error}"
        return Refused(ErrorData(code="HandlerError", type="HandlerError", message=message))


async def reject(
    connection: Connection, lock_key: int, command_id: str, error: ErrorData, *, is_repeated: bool
) -> LookupResult:
    """Write a tombstone, unless the command id has an outcome; ``is_repeated`` says that this one may be there."""
    stored = msgspec.json.encode(error).decode()
    row = await connection.fetchrow(_REJECT, lock_key, command_id, stored, int(MAX_TOMBSTONE_SECONDS * 1_000_000))
    outcome, known = row
    if outcome == 0 or (is_repeated and known == stored):
        return None
    return refused(command_id, known) if outcome == 2 else await lookup(connection, command_id)


async def lock(connection: Connection, lock_id: str, owner: str, ttl: float, request: str) -> Lease | None:
    """Grant the lock unless somebody holds it. Tokens rise for all locks together, so each lock's tokens rise too."""
    token = await connection.fetchval(_LOCK, lock_id, owner, request, _micros(ttl))
    return None if token is None else Lease(lock_id, token)


async def renew(connection: Connection, lease: Lease, ttl: float) -> bool:
    """Let a lease that is still held last ``ttl`` seconds from now."""
    return bool(await connection.fetchval(_RENEW, lease.lock_id, lease.token, _micros(ttl)))


async def unlock(connection: Connection, lease: Lease) -> bool:
    """Give a lock back; whether the lease was still held."""
    return bool(await connection.fetchval(_UNLOCK, lease.lock_id, lease.token))


async def snapshot(connection: Connection, new: Snapshot) -> bool:
    """Keep a snapshot, unless it is older than the kept one or its aggregate is deleted or not that far."""
    state = new.state.decode()
    return bool(await connection.fetchval(_SNAPSHOT, new.aggregate_id, new.fingerprint, new.version, state))


def _micros(seconds: float) -> int:
    return int(seconds * 1_000_000)
