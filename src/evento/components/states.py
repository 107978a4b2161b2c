"""The states that aggregates and sagas are folded into."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from msgspec import Struct, to_builtins

__all__ = ["AggregateState", "SagaState"]

Scalar = str | int | bool
Associated = Scalar | UUID | Enum | Decimal | date


class AggregateState(Struct, kw_only=True):
    """What an aggregate remembers to decide: a mutable struct, rebuilt from the aggregate's events.

    Keep only what decisions need. Setting ``deleted`` in an event-sourcing handler deletes the aggregate in the
    transaction of that event: no later command is accepted.
    """

    deleted: bool = False


class SagaState(Struct, kw_only=True):
    """What a saga remembers between events: a mutable struct with associations that find it again.

    Events find the saga by an equal value of the same JSON type: the text "7" is not the number 7. An association
    belongs to one saga at a time, and a saga that has none left can only be ended.
    """

    associations: dict[str, Scalar] = {}
    ended: bool = False

    def set_association(self, name: str, value: Associated) -> None:
        """Make events whose property ``name`` equals ``value`` find this saga.

        What JSON writes as text or a number (UUID, enum, Decimal, date and time) is kept as that.

        :raises TypeError: the value is None, a number with a fraction, or no single value.
        """
        plain: Any = to_builtins(value)
        if not isinstance(plain, (str, int)):
            raise TypeError(f"the association {name!r} must be a text, an integer or a bool, not {value!r:.100}")
        self.associations[name] = plain

    def get_association(self, name: str) -> Scalar | None:
        """Return the value of an association; None when it is not set."""
        return self.associations.get(name)

    def unset_association(self, name: str) -> None:
        """Remove an association; nothing happens when it is not set."""
        self.associations.pop(name, None)

    def end(self) -> None:
        """End the saga: it is removed once the handler has returned."""
        self.ended = True
