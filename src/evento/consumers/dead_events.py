"""What is written down about an event that goes to the dead event queue."""

from __future__ import annotations

import traceback

from evento.consumers.port import DeadEvent
from evento.errors import EventoError
from evento.messages import EventRecord

__all__ = ["dead_event", "message_of", "summary_of", "traceback_of", "type_of", "waiting_event"]


def waiting_event(event: EventRecord, key: str | None) -> DeadEvent:
    """Return the event as one that waits behind a dead one of its key."""
    return DeadEvent(
        position=event.position,
        event_id=event.event_id,
        event_name=event.name,
        context=event.context,
        aggregate_id=event.aggregate_id,
        key=key,
        waiting=True,
    )


def dead_event(event: EventRecord, key: str | None, error: BaseException, attempts: int) -> DeadEvent:
    """Return the event as one whose handling has failed for good."""
    return DeadEvent(
        position=event.position,
        event_id=event.event_id,
        event_name=event.name,
        context=event.context,
        aggregate_id=event.aggregate_id,
        key=key,
        error_type=type_of(error),
        error_message=message_of(error),
        traceback=traceback_of(error),
        attempts=attempts,
    )


def type_of(error: BaseException) -> str:
    """Return the name of the error's class; that of the original for one that has travelled."""
    return error.type if isinstance(error, EventoError) else type(error).__name__


def summary_of(error: BaseException) -> str:
    """Return one line for people."""
    return f"{type_of(error)}: {message_of(error)}"


def message_of(error: BaseException) -> str:
    """Return what the error says; an error that fails at that must not stop the consumer."""
    try:
        return str(error)
    except Exception as problem:
        return f"(the error cannot be told: its __str__ raises {type(problem).__name__})"


def traceback_of(error: BaseException) -> str:
    """Return the traceback as text."""
    return "".join(traceback.format_exception(error))
