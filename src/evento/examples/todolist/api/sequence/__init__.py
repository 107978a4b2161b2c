"""The domain Sequence: numbers in a strict order, by name."""

from evento.examples.todolist.api.sequence.commands import SequenceNextCommand, SequenceStartCommand
from evento.examples.todolist.api.sequence.events import SequenceGeneratedEvent

__all__ = ["SequenceGeneratedEvent", "SequenceNextCommand", "SequenceStartCommand"]
