"""What befalls instances in the registry without their doing."""

from __future__ import annotations

from sqlalchemy import delete

from evento.messages.registration import Session
from evento.server.registry import RegistryDatabase
from evento.server.registry.schema import instances

__all__ = ["forget"]


async def forget(registry: RegistryDatabase, session: Session) -> None:
    """Lose an instance, as the servers do when it was away for many leases."""
    async with registry._transaction() as connection:
        await connection.execute(delete(instances).where(registry._of(session)))
