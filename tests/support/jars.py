"""One application in several versions, whose event ``JarLabelledEvent`` changes from one to the next."""

from __future__ import annotations

from typing import Any

from evento import (
    Aggregate,
    AggregateId,
    AggregateState,
    DomainCommand,
    DomainEvent,
    EventMessage,
    Projector,
    aggregate_command_handler,
    event_handler,
    event_sourcing_handler,
)


class JarMadeEvent(DomainEvent):
    jar_id: str


class JarLabelledEvent(DomainEvent):
    jar_id: str
    label: str


class JarNumberedEvent(DomainEvent, name="JarLabelledEvent"):
    """The label is a number now: what was stored before does not fit."""

    jar_id: str
    label: int


class JarColouredEvent(DomainEvent, name="JarLabelledEvent", version=2):
    """A field more, with a default: old and new versions read each other's events."""

    jar_id: str
    label: str
    colour: str = "clear"


class JarMakeCommand(DomainCommand[JarMadeEvent]):
    jar_id: AggregateId


class JarLabelCommand(DomainCommand[JarLabelledEvent]):
    jar_id: AggregateId
    label: str


class JarColourCommand(DomainCommand[JarColouredEvent]):
    jar_id: AggregateId
    colour: str


class JarCountCommand(DomainCommand[JarMadeEvent]):
    """Answers with an event that every version knows."""

    jar_id: AggregateId


class JarState(AggregateState):
    labels: list[str] = []


class Seen:
    """What the projectors have seen."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []


class JarAggregate(Aggregate[JarState], abstract=True):
    @aggregate_command_handler(init=True)
    def make(self, command: JarMakeCommand) -> JarMadeEvent:
        return JarMadeEvent(command.jar_id)

    @aggregate_command_handler
    def count(self, command: JarCountCommand, state: JarState) -> JarMadeEvent:
        return JarMadeEvent(command.jar_id)

    @event_sourcing_handler
    def on_made(self, event: JarMadeEvent, state: JarState | None) -> JarState:
        return state or JarState()


class LabelledJar(JarAggregate):
    @aggregate_command_handler
    def label(self, command: JarLabelCommand, state: JarState) -> JarLabelledEvent:
        return JarLabelledEvent(command.jar_id, command.label)

    @event_sourcing_handler
    def on_labelled(self, event: JarLabelledEvent, state: JarState) -> None:
        state.labels.append(event.label)


class NumberedJar(JarAggregate):
    @event_sourcing_handler
    def on_labelled(self, event: JarNumberedEvent, state: JarState) -> None:
        state.labels.append(str(event.label))


class ColouredJar(JarAggregate):
    @aggregate_command_handler
    def colour(self, command: JarColourCommand, state: JarState) -> JarColouredEvent:
        return JarColouredEvent(command.jar_id, state.labels[-1], command.colour)

    @event_sourcing_handler
    def on_labelled(self, event: JarColouredEvent, state: JarState) -> None:
        state.labels.append(f"{event.colour} {event.label}")


class BareJar(JarAggregate):
    """Does not know any more that jars were labelled."""


class JarProjector(Projector, version=1, abstract=True):
    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    @event_handler(retry=0)
    def on_made(self, event: JarMadeEvent, message: EventMessage[JarMadeEvent]) -> None:
        self._seen.events.append((event.jar_id, dict(message.metadata)))


class LabelProjector(JarProjector, version=1):
    @event_handler(retry=0)
    def on_labelled(self, event: JarLabelledEvent) -> None:
        self._seen.events.append((event.jar_id, event.label))


class NumberProjector(JarProjector, version=1):
    @event_handler(retry=0)
    def on_labelled(self, event: JarNumberedEvent) -> None:
        self._seen.events.append((event.jar_id, event.label))


class ColourProjector(JarProjector, version=1):
    @event_handler(retry=0)
    def on_labelled(self, event: JarColouredEvent) -> None:
        self._seen.events.append((event.jar_id, event.label, event.colour))
