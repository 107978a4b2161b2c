"""Consumers and dead events as they travel, and back."""

from __future__ import annotations

from dataclasses import asdict

from msgspec.structs import asdict as fields_of

from evento.components import Role
from evento.consumers.port import ConsumerId, DeadEvent
from evento.consumers.status import ConsumerState, ConsumerStatus
from evento.messages import from_micros, to_micros
from evento.messages.consumers import ConsumerName, ConsumerView, DeadEventView

__all__ = ["dead_event_of", "dead_event_view", "id_of", "name_of", "status_of", "status_view"]


def name_of(consumer: ConsumerId) -> ConsumerName:
    """Return the id as it travels."""
    return ConsumerName(consumer.bundle, consumer.component, consumer.version, consumer.context)


def id_of(name: ConsumerName) -> ConsumerId:
    """Return the id that travelled."""
    return ConsumerId(name.bundle, name.component, name.version, name.context)


def status_view(status: ConsumerStatus) -> ConsumerView:
    """Return the status as it travels."""
    return ConsumerView(
        name=name_of(status.id),
        role="" if status.role is None else status.role.value,
        state=status.state.value,
        position=status.position,
        head=status.head,
        lag_events=status.lag_events,
        head_reached=status.head_reached,
        errors=status.errors,
        last_error=status.last_error,
        failing_since=None if status.failing_since is None else to_micros(status.failing_since),
        dead=status.dead,
        waiting=status.waiting,
        retrying=status.retrying,
        lag_seconds=status.lag_seconds,
    )


def status_of(view: ConsumerView) -> ConsumerStatus:
    """Return the status that travelled.

    :raises ValueError: it has a state or role that is not known here.
    """
    return ConsumerStatus(
        id=id_of(view.name),
        role=Role(view.role) if view.role else None,
        state=ConsumerState(view.state),
        position=view.position,
        head=view.head,
        lag_events=view.lag_events,
        head_reached=view.head_reached,
        errors=view.errors,
        last_error=view.last_error,
        failing_since=None if view.failing_since is None else from_micros(view.failing_since),
        dead=view.dead,
        waiting=view.waiting,
        retrying=view.retrying,
        lag_seconds=view.lag_seconds,
    )


def dead_event_view(event: DeadEvent) -> DeadEventView:
    """Return the event as it travels."""
    return DeadEventView(**asdict(event))


def dead_event_of(view: DeadEventView) -> DeadEvent:
    """Return the event that travelled."""
    return DeadEvent(**fields_of(view))
