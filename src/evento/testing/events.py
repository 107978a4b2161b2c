"""Events with an envelope, for tests that care about more than the payload."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

from msgspec.structs import replace

from evento.messages import (
    Event,
    EventMessage,
    EventRecord,
    Metadata,
    PayloadKind,
    definition_of,
    new_id,
    now_micros,
    seal,
    to_micros,
)
from evento.state_store import NewEvent

__all__ = ["AnyEvent", "Stream", "as_message", "event_message", "micros", "new_event"]

E = TypeVar("E", bound=Event)
AnyEvent: TypeAlias = Event | EventMessage[Any]
"""What is accepted wherever a test gives an event: the event, or :func:`event_message` of it."""


def event_message(
    event: E,
    *,
    metadata: Mapping[str, str] | None = None,
    timestamp: datetime | None = None,
    aggregate_id: str | None = None,
    context: str | None = None,
    message_id: str | None = None,
    correlation_id: str | None = None,
    causation_id: str | None = None,
) -> EventMessage[E]:
    """Return an event with its envelope, to use wherever a test gives an event.

    ::

        projector_test(OrderProjector, injector=injector).when(
            event_message(OrderPlacedEvent("ORD_1", "ann"), metadata={"user": "ann"}, aggregate_id="ORD_1")
        )

    Position and version are counted by the test that the event is given to, so they are 0 and None here.

    :param timestamp: when the event was decided, an aware datetime; default: now.
    :param aggregate_id: default: the field of the event that is annotated with ``AggregateId``, else None.
    :param context: default: that of the event.
    :raises PayloadError: the event does not hold what its types say.
    """
    if context is not None:
        event = replace(event, context=context)
    payload, copy = seal(event)
    definition = definition_of(type(event))
    if aggregate_id is None and definition.aggregate_field is not None:
        aggregate_id = getattr(copy, definition.aggregate_field)
    command_id = causation_id or new_id()
    record = EventRecord(
        position=0,
        context=copy.context,
        aggregate_id=aggregate_id,
        version=None,
        name=definition.name,
        schema_version=definition.version,
        kind="domain" if definition.kind is PayloadKind.DOMAIN_EVENT else "service",
        payload=payload,
        metadata=Metadata.checked(metadata).to_json(),
        event_id=message_id or new_id(),
        command_id=command_id,
        correlation_id=correlation_id or command_id,
        causation_id=command_id,
        timestamp=now_micros() if timestamp is None else micros(timestamp),
    )
    return EventMessage(copy, record)


class Stream:
    """Gives events their places: positions in the whole, and versions within each aggregate, both from 1."""

    def __init__(self) -> None:
        self._position = 0
        self._versions: Counter[str] = Counter()

    def place(self, event: AnyEvent) -> EventMessage[Any]:
        """Return the next event of the stream."""
        message = as_message(event)
        record, version = message.record, None
        if record.aggregate_id is not None:
            self._versions[record.aggregate_id] += 1
            version = self._versions[record.aggregate_id]
        self._position += 1
        return EventMessage(message.payload, replace(record, position=self._position, version=version))


def as_message(event: AnyEvent) -> EventMessage[Any]:
    """Return the event with its envelope.

    :raises TypeError: it is no event.
    """
    if isinstance(event, EventMessage):
        return event
    if not isinstance(event, Event):
        raise TypeError(f"{event!r} is no event: give events, or event_message() of them")
    return event_message(event)


def new_event(record: EventRecord, **changes: Any) -> NewEvent:
    """Return an event to append to the store of a test, which need not know its command."""
    fields = {name: getattr(record, name) for name in NewEvent.__struct_fields__}
    return NewEvent(**{**fields, "command_id": new_id(), **changes})


def micros(moment: datetime) -> int:
    """Return an aware datetime as microseconds since 1970."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone: write datetime(..., tzinfo=timezone.utc)")
    return to_micros(moment)
