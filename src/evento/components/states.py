"""The states that aggregates and sagas are folded into."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["AggregateState", "SagaState"]

Scalar = str | int | bool


class AggregateState(Struct, kw_only=True):
    """What an aggregate remembers to decide: a mutable struct, rebuilt from the aggregate's events.

    Keep only what decisions need. Setting ``deleted`` in an event-sourcing handler deletes the aggregate in the
    transaction of that event: no later command is accepted.
    """

    deleted: bool = False


class SagaState(Struct, kw_only=True):
    """What a saga remembers between events: a mutable struct with associations that find it again."""

    associations: dict[str, Scalar] = {}
    ended: bool = False

    def set_association(self, name: str, value: Scalar) -> None:
        """Make events whose property ``name`` equals ``value`` find this saga."""
        self.associations[name] = value

    def get_association(self, name: str) -> Scalar | None:
        """Return the value of an association; None when it is not set."""
        return self.associations.get(name)

    def unset_association(self, name: str) -> None:
        """Remove an association; nothing happens when it is not set."""
        self.associations.pop(name, None)

    def end(self) -> None:
        """End the saga: it is removed once the handler has returned."""
        self.ended = True
