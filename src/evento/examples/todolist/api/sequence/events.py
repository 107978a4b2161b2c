"""What has happened to sequences."""

from evento import DomainEvent

__all__ = ["SequenceGeneratedEvent"]


class SequenceGeneratedEvent(DomainEvent, domain="Sequence"):
    """A number was generated: greater than all before it, and nobody else's."""

    name: str
    value: int
