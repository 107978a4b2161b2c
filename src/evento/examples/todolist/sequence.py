"""Numbers in a strict order, however many servers ask for them: the order in which the aggregate decides."""

from evento import (
    Aggregate,
    AggregateState,
    aggregate_command_handler,
    event_sourcing_handler,
)
from evento.examples.todolist.api.sequence import SequenceGeneratedEvent, SequenceNextCommand, SequenceStartCommand

__all__ = ["SequenceAggregate", "SequenceState"]


class SequenceState(AggregateState):
    """The newest number."""

    value: int


class SequenceAggregate(Aggregate[SequenceState], snapshot_frequency=10):
    """One sequence. It has many events and a small state, hence a snapshot every few events."""

    @aggregate_command_handler(init=True)
    def start(self, command: SequenceStartCommand) -> SequenceGeneratedEvent:
        """Begin with 1."""
        return SequenceGeneratedEvent(command.name, 1)

    @aggregate_command_handler
    def next(self, command: SequenceNextCommand, state: SequenceState) -> SequenceGeneratedEvent:
        """Go on."""
        return SequenceGeneratedEvent(command.name, state.value + 1)

    @event_sourcing_handler
    def on_generated(self, event: SequenceGeneratedEvent) -> SequenceState:
        """Remember the number."""
        return SequenceState(value=event.value)
