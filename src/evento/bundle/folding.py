"""Folding: from an aggregate's events to its state, the same way on replay and for the event just decided."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from evento.components import ComponentDefinition, HandlerDefinition, HandlerKind
from evento.errors import PayloadError
from evento.messages import Event, EventMessage, EventRecord, Metadata, decode, from_micros

__all__ = ["Folder"]


class FoldInjection:
    """What event-sourcing handlers may ask for. The position is not known before the append, so it is always 0."""

    __slots__ = ("_message", "_payload", "_record", "state")

    def __init__(self, state: Any, payload: Event, record: EventRecord) -> None:
        self.state = state
        self._payload = payload
        self._record = record
        self._message: EventMessage[Any] | None = None

    @property
    def message(self) -> EventMessage[Any]:
        if self._message is None:
            record = self._record
            self._message = EventMessage(
                self._payload,
                msgspec.structs.replace(record, position=0, deleted_at=None) if record.position else record,
            )
        return self._message

    @property
    def metadata(self) -> Metadata:
        return self.message.metadata

    @property
    def timestamp(self) -> datetime:
        return from_micros(self._record.timestamp)


class Folder:
    """Applies events to the state of one aggregate component.

    :param knows: whether an event name has a class. An event that is known but not handled changes no state; one that
        nobody knows was handled once, perhaps, so a state without it may be wrong.
    """

    def __init__(
        self, aggregate: ComponentDefinition, instance: object, *, knows: Callable[[str], object] = lambda name: True
    ) -> None:
        self._aggregate = aggregate
        self._knows = knows
        self._handlers: dict[str, tuple[HandlerDefinition, Callable[[Any, Any], Any]]] = {
            handler.payload_name: (handler, handler.bind(instance))
            for handler in aggregate.handlers_of(HandlerKind.EVENT_SOURCING)
        }
        self._state_type = aggregate.state

    def apply(self, state: Any, payload: Event, record: EventRecord) -> Any:
        """Return the state after one event; one without a handler changes nothing, and makes the initial state."""
        found = self._handlers.get(record.name)
        if found is None:
            return self._initial() if state is None else state
        handler, call = found
        result = call(payload, FoldInjection(state, payload, record))
        if result is None:
            if state is None:
                raise self._aggregate.error(
                    f"{handler.name} handles the first event of an aggregate and must return the new state, "
                    "but returned None"
                )
            return state
        return result

    def replay(self, state: Any, records: Any) -> Any:
        """Return the state after stored events: the one that each of them had when it was decided."""
        for record in records:
            found = self._handlers.get(record.name)
            if found is None:
                if record.kind == "service" or self._knows(record.name):
                    state = self._initial() if state is None else state
                    continue
                raise PayloadError(
                    f"event {record.position} of {record.aggregate_id!r} is a {record.name!r}, which no class of this "
                    "bundle has as its name: keep the class of an event that is stored, or name the new one so (name=)",
                    position=record.position,
                    name=record.name,
                )
            payload_type: Any = found[0].payload
            try:
                payload = decode(payload_type, record.payload)
            except PayloadError as error:
                raise PayloadError(
                    f"event {record.position} of {record.aggregate_id!r} cannot be read: {error}; keep reading old "
                    "fields, or give new ones a default",
                    position=record.position,
                    name=record.name,
                ) from error
            state = self.apply(state, payload, record)
        return state

    def _initial(self) -> Any:
        """Return the state of an aggregate whose events have not made one."""
        try:
            return None if self._state_type is None else self._state_type()
        except TypeError as error:
            raise self._aggregate.error(
                f"no event-sourcing handler has returned a state, and {self._state_type} cannot be made without "
                f"arguments ({error}): handle the init command's event, or give every field a default"
            ) from error
