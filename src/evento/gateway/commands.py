"""The CommandGateway: how components and applications send commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast, overload

from evento.errors import CapabilityError, PayloadError
from evento.gateway.handling import handling_now
from evento.gateway.requests import RequestSender
from evento.messages import (
    MAX_PAYLOAD_BYTES,
    Command,
    DomainCommand,
    DomainEvent,
    Event,
    EventMessage,
    EventRecord,
    PayloadKind,
    Request,
    ServiceCommand,
    decode,
    definition_of,
    is_keepable,
    new_id,
    now_micros,
    result_type_of,
    seal,
)

__all__ = ["CommandGateway"]

R = TypeVar("R")
E = TypeVar("E", bound=DomainEvent)
EventClasses = Callable[[str], type[Event] | None]
MAX_MESSAGE_ID = 200


class CommandGateway:
    """Sends commands to the one handler of their type and returns the event that came of it.

    Inside a handler, metadata, correlation and causation flow from the handled message, and the default message id is
    derived from it, so that handling the message again sends the same ids.
    """

    def __init__(
        self, sender: RequestSender, *, event_classes: EventClasses, max_payload_bytes: int = MAX_PAYLOAD_BYTES
    ) -> None:
        self._sender = sender
        self._event_classes = event_classes
        self._limit = max_payload_bytes
        self._results: dict[type, type[Event] | None] = {}

    async def send(
        self,
        command: Command[R],
        *,
        metadata: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        message_id: str | None = None,
    ) -> R:
        """Send a command and return the event that it produced; None for a void service command.

        The event is on disk when this returns. ``message_id`` is the idempotency key, unique in the whole store (at
        most 200 characters): sending it again returns the first outcome and changes nothing. ``timeout`` is in
        seconds, at most 300; at its end running work is cancelled, unless its event is being stored already.

        :raises CommandRejected: the handler said no.
        :raises RequestTimeout: no answer in time; the command may have taken effect.
        :raises PayloadError: the command does not hold what its types say; nothing was sent.
        :raises HandlerNotFound: nobody handles the command.
        :raises HandlerError: the handler failed.
        :raises EventoError: any other class of the tree in ``evento.errors``.
        """
        record = await self._dispatch(command, metadata, timeout, message_id)
        return cast(R, None if record is None else self._payload(command, record))

    @overload
    async def send_message(
        self,
        command: DomainCommand[E],
        *,
        metadata: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        message_id: str | None = None,
    ) -> EventMessage[E]: ...

    @overload
    async def send_message(
        self,
        command: ServiceCommand[R],
        *,
        metadata: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        message_id: str | None = None,
    ) -> EventMessage[R] | None: ...

    async def send_message(
        self,
        command: Command[Any],
        *,
        metadata: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        message_id: str | None = None,
    ) -> EventMessage[Any] | None:
        """Send a command like :meth:`send` and return the event with its envelope: position, version, ids."""
        record = await self._dispatch(command, metadata, timeout, message_id)
        return None if record is None else EventMessage(self._payload(command, record), record)

    async def _dispatch(
        self,
        command: Command[Any],
        metadata: Mapping[str, str] | None,
        timeout: float,
        message_id: str | None,
    ) -> EventRecord | None:
        handling = handling_now.get()
        if handling is not None and not handling.may_send:
            raise CapabilityError(
                f"{handling.handler} may not send commands: projectors and projections only read; move "
                f"{type(command).__name__} to a saga, an observer, a service or an invoker"
            )
        if not isinstance(command, Command):
            raise PayloadError(
                f"{type(command).__name__} is not a command: send a DomainCommand or ServiceCommand, or ask a query by "
                "queries.query()"
            )
        data, copy = seal(command, self._limit)
        name = type(command).__evento__.name
        if message_id is not None:
            _check_id(message_id)
        keyed = message_id is not None or (handling is not None and handling.derive)
        if message_id is None:
            message_id = new_id() if handling is None else handling.next_id(name, _boundary(copy))
        request = Request(
            kind="command",
            name=name,
            payload=data,
            metadata=self._sender.metadata(metadata, handling),
            message_id=message_id,
            correlation_id=message_id if handling is None else handling.message.correlation_id,
            causation_id=None if handling is None else handling.message.message_id,
            timestamp=now_micros(),
            keyed=keyed,
            boundaries=() if handling is None else handling.boundaries,
            depth=0 if handling is None else handling.depth,
            decoded=copy,
        )
        return (await self._sender.request(request, timeout)).event

    def _payload(self, command: Command[Any], record: EventRecord) -> Event:
        cls = self._event_classes(record.name) or self._declared_result(type(command), record.name)
        if cls is None:
            raise PayloadError(
                f"{type(command).__name__} took effect, but its event {record.name!r} is unknown here: name it in the "
                f"command's class, such as DomainCommand[{record.name}]",
                name=record.name,
                position=record.position,
            )
        return decode(cls, record.payload)

    def _declared_result(self, command: type, name: str) -> type[Event] | None:
        if command not in self._results:
            hint = result_type_of(command)
            self._results[command] = hint if isinstance(hint, type) and issubclass(hint, Event) else None
        cls = self._results[command]
        return cls if cls is not None and definition_of(cls).name == name else None


def _boundary(command: Command[Any]) -> str:
    if command.__evento__.kind is PayloadKind.DOMAIN_COMMAND:
        return str(command.lock_id or cast(DomainCommand, command).aggregate_id)
    return command.lock_id or ""


def _check_id(message_id: str) -> None:
    if not isinstance(message_id, str) or not 0 < len(message_id) <= MAX_MESSAGE_ID or not is_keepable(message_id):
        raise PayloadError(
            f"message_id must be a str of 1 to {MAX_MESSAGE_ID} characters, without NUL and lone surrogates, "
            f"not {message_id!r:.80}"
        )
