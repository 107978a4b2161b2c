"""The rows of sagas: one for each saga, and one for each of its associations."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from sqlalchemy import and_, bindparam, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from evento.consumers.port import ConsumerId, SagaChange, StoredSaga
from evento.consumers.sqlalchemy_store.damage import damaged
from evento.consumers.sqlalchemy_store.identity import fields_of, is_of
from evento.consumers.sqlalchemy_store.schema import saga_associations, sagas
from evento.databases import database_now

__all__ = ["find_saga", "list_sagas", "write_sagas"]


async def find_saga(connection: AsyncConnection, consumer: ConsumerId, association: str) -> StoredSaga | None:
    """Return the saga that has an association."""
    a = saga_associations.c
    s = sagas.c
    owner = select(a.saga_id.label("owner")).where(is_of(saga_associations, consumer), a.digest == _digest(association))
    owners = owner.subquery()
    query = select(owners.c.owner, s.saga_id, s.state).outerjoin(
        sagas, and_(is_of(sagas, consumer), s.saga_id == owners.c.owner)
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    if row.saga_id is None:  # as if it had never been would begin the saga anew, or pass its events over
        raise damaged(
            f"the row of the association {association} of {consumer}",
            f"it names the saga {row.owner!r:.100}, which is not stored",
            f"restore the consumer state from a backup, or remove the row from {saga_associations.name} to begin the "
            "saga anew, and retry its dead events",
        )
    return _saga(row.saga_id, row.state)


async def list_sagas(connection: AsyncConnection, consumer: ConsumerId, after: str, limit: int) -> list[StoredSaga]:
    """Return the sagas with ids beyond ``after``."""
    s = sagas.c
    query = select(s.saga_id, s.state).where(is_of(sagas, consumer), s.saga_id > after).order_by(s.saga_id).limit(limit)
    return [_saga(row.saga_id, row.state) for row in await connection.execute(query)]


async def write_sagas(connection: AsyncConnection, consumer: ConsumerId, changes: Sequence[SagaChange]) -> None:
    """Write what has become of sagas; to be called under the lock of the consumer's row."""
    whose = fields_of(consumer)
    removed = [{"gone": _digest(association)} for change in changes for association in change.removed]
    added = [
        {**whose, "digest": _digest(association), "association": association, "saga_id": change.id}
        for change in changes
        for association in change.added
    ]
    kept = [
        {**whose, "saga_id": change.id, "state": change.state.decode()}
        for change in changes
        if change.state is not None
    ]
    without = delete(saga_associations).where(
        is_of(saga_associations, consumer), saga_associations.c.digest == bindparam("gone")
    )
    if removed:
        await connection.execute(without, removed)
    await connection.execute(
        delete(sagas).where(is_of(sagas, consumer), sagas.c.saga_id == bindparam("changed")),
        [{"changed": change.id} for change in changes],
    )
    if kept:
        await connection.execute(insert(sagas).values(changed_at=database_now()), kept)
    if added:
        await connection.execute(insert(saga_associations), added)


def _saga(id: str, state: str) -> StoredSaga:
    return StoredSaga(id, state.encode(errors="surrogateescape"))  # the very bytes: their decoder tells what is wrong


def _digest(association: str) -> str:
    return sha256(association.encode()).hexdigest()
