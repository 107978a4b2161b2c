"""Delivery of many events at a time: to observers, and to consumers with lanes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

from evento.components import (
    ComponentDefinition,
    HandlerDefinition,
    Interceptor,
    TracingAgent,
)
from evento.components.counting import CountOf
from evento.consumers.delivery import EventInjection, event_handlers
from evento.consumers.port import ConsumerId
from evento.consumers.status import Standing
from evento.gateway import CommandGateway, QueryGateway
from evento.messages import EventMessage, EventRecord

__all__ = ["ObserverDelivery"]


class ObserverDelivery:
    """Delivers to an observer, or to a projector in lanes.

    :param head: the head of the event store, for handlers that ask for the status of their projector.
    :param lanes: how many lanes there are: events of an aggregate keep their order. 0: events have no order, so
        nothing waits behind a dead one.
    """

    def __init__(
        self,
        consumer: ConsumerId,
        component: ComponentDefinition,
        instance: object,
        *,
        standing: Standing,
        head: Callable[[], int],
        lanes: int = 0,
        commands: CommandGateway | None = None,
        queries: QueryGateway | None = None,
        tracing: TracingAgent | None = None,
        interceptors: Sequence[Interceptor] = (),
        executors: Mapping[str, Executor] | None = None,
        counts: CountOf | None = None,
    ) -> None:
        self.role = component.role
        self.lanes = lanes
        self._head = head
        self._commands = commands
        self._queries = queries
        self._standing = standing
        self._handlers = event_handlers(
            consumer,
            component,
            instance,
            tracing=tracing,
            interceptors=interceptors,
            executors=executors,
            counts=counts,
        )
        self.names: tuple[str, ...] = tuple(self._handlers)

    def handler_of(self, event: EventRecord) -> HandlerDefinition:
        """Return the handler of an event."""
        return self._handlers[event.name].definition

    def key_of(self, event: EventRecord) -> str | None:
        """Return what the event is ordered by: its aggregate, where there are lanes."""
        return event.aggregate_id if self.lanes else None

    async def deliver(self, event: EventRecord, attempt: int) -> None:
        """Handle an event; errors of the handler pass, :class:`UndecodableEvent` when it cannot be read."""
        handler = self._handlers[event.name]
        message = EventMessage(handler.read(event), event)
        # Handlers run side by side, so each has an injection of its own.
        injection = EventInjection(
            commands=self._commands, queries=self._queries, standing=self._standing, head=self._head
        )
        await handler.run(message, injection, attempt)
