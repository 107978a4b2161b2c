"""The four columns that say whose a row is."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Table, and_

from evento.consumers.port import Checkpoint, ConsumerId

__all__ = ["fields_of", "is_of"]


def fields_of(value: ConsumerId | Checkpoint) -> dict[str, Any]:
    """Return the columns of an identity or a checkpoint."""
    return {name: getattr(value, name) for name in value.__slots__}


def is_of(table: Table, consumer: ConsumerId) -> ColumnElement[bool]:
    """Return the condition that a row is a consumer's."""
    return and_(*(table.c[name] == value for name, value in fields_of(consumer).items()))
