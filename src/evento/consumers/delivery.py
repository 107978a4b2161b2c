"""Delivery: how an event reaches the handler of a component; that of projectors."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from datetime import datetime
from typing import Any, Protocol

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from evento.components import (
    ComponentDefinition,
    HandlerDefinition,
    HandlerKind,
    HandlerRunner,
    Injectable,
    Interceptor,
    ProjectorStatus,
    Role,
    TracingAgent,
)
from evento.components.counting import CountOf, counted
from evento.consumers.failures import UndecodableEvent
from evento.consumers.port import CheckpointTransaction, ConsumerId
from evento.consumers.saga_changes import SagaChanges
from evento.consumers.status import Standing
from evento.errors import DefinitionError, PayloadError
from evento.gateway import CommandGateway, Handling, QueryGateway
from evento.messages import EventMessage, EventRecord, Metadata, Payload, decode, definition_of

__all__ = [
    "CheckpointScope",
    "Delivery",
    "EventHandler",
    "EventInjection",
    "ProjectorDelivery",
    "Transactions",
    "event_handlers",
]


class Transactions(Protocol):
    """Where a handler's transaction comes from."""

    async def transaction(self) -> CheckpointTransaction:
        """Return the transaction that the checkpoint of the event commits in."""
        ...


class CheckpointScope(Transactions, Protocol):
    """What a delivery may change together with the checkpoint of its event."""

    @property
    def sagas(self) -> SagaChanges:
        """The sagas of the consumer; what changes in them commits with the checkpoint."""
        ...


class Delivery(Protocol):
    """How a role handles one event: what tells projectors, sagas and observers apart.

    ``names`` are the wire names of the events that the component handles; no other event is delivered.
    """

    @property
    def role(self) -> Role:
        """The role of the component."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """The wire names of the handled events."""
        ...

    def handler_of(self, event: EventRecord) -> HandlerDefinition:
        """Return the handler of an event."""
        ...

    def key_of(self, event: EventRecord) -> str | None:
        """Return what the event is ordered by: behind a dead event later ones of its key wait. None: none wait."""
        ...

    async def begin(self, parked: AsyncIterable[tuple[str, EventRecord | None]], scope: CheckpointScope) -> None:
        """Begin a tenure; ``parked`` are the keys of the dead event queue, each with an event, or None if gone."""
        ...

    async def hold(self, key: str, scope: CheckpointScope) -> None:
        """Take note that a key has a dead event now, so that :meth:`key_of` tells what else waits behind it."""
        ...

    def release(self, held: Collection[str]) -> None:
        """Take note that only these keys have events in the dead event queue now."""
        ...

    async def deliver(self, event: EventRecord, scope: CheckpointScope, attempt: int, /) -> None:
        """Handle an event; errors of the handler pass, :class:`UndecodableEvent` when it cannot be read."""
        ...


class EventInjection:
    """What a handler may ask for, for the event that is handled now."""

    __slots__ = ("_head", "_standing", "commands", "connection", "message", "queries", "session", "state")

    message: EventMessage[Any]
    connection: AsyncConnection
    session: AsyncSession
    state: Any

    def __init__(
        self,
        *,
        commands: CommandGateway | None,
        queries: QueryGateway | None,
        standing: Standing,
        head: Callable[[], int],
    ) -> None:
        self.commands = commands
        self.queries = queries
        self._standing = standing
        self._head = head

    @property
    def metadata(self) -> Metadata:
        """What travels with the event."""
        return self.message.metadata

    @property
    def timestamp(self) -> datetime:
        """When the event was decided (UTC)."""
        return self.message.timestamp

    @property
    def status(self) -> ProjectorStatus:
        """Where the projector stands."""
        position = self.message.position
        return ProjectorStatus(self._standing.head_reached.is_set(), position, max(position, self._head()))


class EventHandler:
    """One handler of a consumer, with everything about it resolved."""

    __slots__ = (
        "_decode",
        "_may_query",
        "_may_send",
        "_run",
        "definition",
        "id",
        "needs_connection",
        "needs_session",
        "payload",
    )

    def __init__(self, consumer: ConsumerId, role: Role, runner: HandlerRunner, counts: CountOf | None = None) -> None:
        definition = runner.handler
        if definition.payload is None:
            raise DefinitionError(f"{definition.id} handles no event")
        self.definition = definition
        self.payload = definition.payload
        # What evento.messages.decode() does, without looking the decoder up for every event of a replay.
        self._decode: Callable[[bytes], Any] = definition_of(definition.payload).decoder.decode
        self._run: Callable[[Any, Any, Handling], Awaitable[Any]] = runner.run
        if counts is not None:
            self._run = counted(runner.run, counts(definition))
        self._may_send = role.may_send_commands
        self._may_query = role.may_query
        self.id = f"{consumer}.{definition.name}"  # part of the ids of what it sends: the same in every run
        self.needs_session = definition.needs(Injectable.SESSION)
        self.needs_connection = definition.needs(Injectable.CONNECTION) or self.needs_session

    def read(self, event: EventRecord) -> Any:
        """Return the payload; :class:`UndecodableEvent` when it does not fit the handler's class."""
        try:
            return self._decode(event.payload)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise _undecodable(self.payload, event) from None

    def run(
        self, message: EventMessage[Any], injection: EventInjection, attempt: int, longest_request: float | None = None
    ) -> Awaitable[Any]:
        """Run the handler; what it sends has the same ids whenever it handles this event."""
        injection.message = message
        handling = Handling(
            message,
            handler=self.id,
            may_send=self._may_send,
            may_query=self._may_query,
            depth=1,  # what a consumer sends holds it up, and all who wait for it: it never queues behind these
            attempt=attempt,
            longest_request=longest_request,
        )
        return self._run(message.payload, injection, handling)


class ProjectorDelivery:
    """Delivers to a projector: one event after another, held back by aggregate id."""

    def __init__(
        self,
        consumer: ConsumerId,
        component: ComponentDefinition,
        instance: object,
        *,
        standing: Standing,
        head: Callable[[], int],
        commands: CommandGateway | None = None,
        queries: QueryGateway | None = None,
        tracing: TracingAgent | None = None,
        interceptors: Sequence[Interceptor] = (),
        executors: Mapping[str, Executor] | None = None,
        counts: CountOf | None = None,
    ) -> None:
        self.role = component.role
        # Events come one at a time, so one injection serves them all.
        self._injection = EventInjection(commands=commands, queries=queries, standing=standing, head=head)
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
        """Return the aggregate id: events of an aggregate keep their order, also behind a dead one."""
        return event.aggregate_id

    async def begin(self, parked: AsyncIterable[tuple[str, EventRecord | None]], scope: CheckpointScope) -> None:
        """Nothing is to be known beforehand."""

    async def hold(self, key: str, scope: CheckpointScope) -> None:
        """Nothing else waits: an event has one aggregate."""

    def release(self, held: Collection[str]) -> None:
        """Nothing else has waited."""

    async def deliver(self, event: EventRecord, transactions: Transactions, attempt: int) -> None:
        """Handle an event."""
        handler, injection = self._handlers[event.name], self._injection
        message = EventMessage(handler.read(event), event)
        if not handler.needs_connection:
            await handler.run(message, injection, attempt)
            return
        transaction = await transactions.transaction()
        injection.connection = transaction.connection
        longest = transaction.patience * 0.8  # an answer that does not come is no fault of the event
        async with transaction.watched(handler.definition.id):
            if not handler.needs_session:
                await handler.run(message, injection, attempt, longest)
                return
            async with AsyncSession(
                injection.connection, expire_on_commit=False, join_transaction_mode="rollback_only"
            ) as injection.session:
                await handler.run(message, injection, attempt, longest)
                await injection.session.flush()


def _undecodable(payload: type[Payload], event: EventRecord) -> UndecodableEvent:
    """Return the error with the message that :func:`decode` has for it."""
    try:
        decode(payload, event.payload)
    except PayloadError as error:
        return UndecodableEvent(error.message, **error.data)
    return UndecodableEvent(f"{event.name} at position {event.position} cannot be decoded")


def event_handlers(
    consumer: ConsumerId,
    component: ComponentDefinition,
    instance: object,
    *,
    tracing: TracingAgent | None,
    interceptors: Sequence[Interceptor],
    executors: Mapping[str, Executor] | None = None,
    counts: CountOf | None = None,
) -> dict[str, EventHandler]:
    """Return the handlers of a component by the wire names of their events.

    :param counts: where the runs of each are counted.

    :raises DefinitionError: one names an executor that the bundle does not have.
    """
    handlers: dict[str, EventHandler] = {}
    for kind in (HandlerKind.EVENT, HandlerKind.SAGA_EVENT):
        for handler in component.handlers_of(kind):
            runner = HandlerRunner(
                handler,
                instance,
                tracing=tracing,
                interceptors=interceptors,
                executor=_executor_of(component, handler, executors or {}),
            )
            handlers[handler.payload_name] = EventHandler(consumer, component.role, runner, counts)
    return handlers


def _executor_of(
    component: ComponentDefinition, handler: HandlerDefinition, executors: Mapping[str, Executor]
) -> Executor | None:
    """Return the executor that a handler names; :class:`DefinitionError` when the bundle does not have it."""
    if handler.executor is None:
        return None
    if handler.executor not in executors:
        raise component.error(
            f"{handler.name} names the executor {handler.executor!r}, which the bundle does not have: "
            f"it has {', '.join(sorted(executors)) or 'none'}"
        )
    return executors[handler.executor]
