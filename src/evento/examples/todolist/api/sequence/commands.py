"""What can be asked of a sequence; the aggregate is the sequence, its id ``SEQ_`` and its name."""

from evento import DomainCommand
from evento.examples.todolist.api.sequence.events import SequenceGeneratedEvent

__all__ = ["SequenceNextCommand", "SequenceStartCommand"]


class SequenceStartCommand(DomainCommand[SequenceGeneratedEvent], domain="Sequence"):
    """Generate the first number of a sequence, 1."""

    name: str

    @property
    def aggregate_id(self) -> str:
        """The sequence."""
        return f"SEQ_{self.name}"


class SequenceNextCommand(DomainCommand[SequenceGeneratedEvent], domain="Sequence"):
    """Generate the next number of a sequence that has begun."""

    name: str

    @property
    def aggregate_id(self) -> str:
        """The sequence."""
        return f"SEQ_{self.name}"
