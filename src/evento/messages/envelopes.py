"""Envelopes: a payload together with its identity, its cause and what travels with it.

Handlers receive them by type (``message: EventMessage[OrderPlacedEvent]``). ``Request``, ``Reply`` and
``EventRecord`` are the same facts as they travel and are stored: payloads as JSON bytes that gateway, server and store
pass on untouched.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime, timedelta, timezone
from time import time_ns
from typing import Any, Generic

import msgspec
from typing_extensions import TypeVar

from evento.errors import ErrorData
from evento.messages.metadata import EMPTY_METADATA, Metadata

__all__ = [
    "CommandMessage",
    "EventMessage",
    "EventRecord",
    "InvocationMessage",
    "Message",
    "QueryMessage",
    "Reply",
    "Request",
    "from_micros",
    "now_micros",
    "to_micros",
]

P_co = TypeVar("P_co", covariant=True, default=Any)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def now_micros() -> int:
    """Return the time now, in microseconds since 1970 (UTC)."""
    return time_ns() // 1000


def from_micros(micros: int) -> datetime:
    """Return ``micros`` since 1970 as an aware datetime (UTC)."""
    return _EPOCH + timedelta(microseconds=micros)


def to_micros(moment: datetime) -> int:
    """Return an aware datetime as microseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


class Request(msgspec.Struct, frozen=True):
    """A command or query on its way to its handler.

    ``keyed`` tells that the message id was given or derived, so that the store may know it already; ``attempt`` is
    more than 1 when a former attempt with this id got no definite answer. ``boundaries`` are those that the chain of
    causes holds, ``depth`` counts that chain. ``decoded`` is the checked copy of the payload that an in-process sender
    hands over beside the bytes; it never travels.
    """

    kind: str  # "command" or "query"
    name: str
    payload: bytes
    metadata: Metadata
    message_id: str
    correlation_id: str
    causation_id: str | None
    timestamp: int
    keyed: bool = False
    attempt: int = 1
    boundaries: tuple[str, ...] = ()
    depth: int = 0
    at_least: int | None = None
    decoded: Any = None


class EventRecord(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An event as the System State Store keeps it.

    ``payload`` and ``metadata`` are JSON text in UTF-8, ``timestamp`` and ``deleted_at`` microseconds since 1970.
    ``aggregate_id`` and ``version`` are None for a service event that belongs to no lock id. ``deleted_at`` says when
    the aggregate was deleted; only the store's ``search`` and ``event`` fill it.
    """

    position: int
    context: str
    aggregate_id: str | None
    version: int | None
    name: str
    schema_version: int
    kind: str  # "domain" or "service"
    payload: bytes
    metadata: bytes
    event_id: str
    command_id: str
    correlation_id: str
    causation_id: str | None
    timestamp: int
    deleted_at: int | None = None


class Reply(msgspec.Struct, frozen=True):
    """The answer to a request: the event of a command (None: a void service command), a view as JSON, or an error."""

    event: EventRecord | None = None
    view: bytes | None = None
    error: ErrorData | None = None


class Message(ABC, Generic[P_co]):
    """What all envelopes have: the payload, its wire name, metadata, time and ids."""

    __slots__ = ("_payload",)

    def __init__(self, payload: P_co) -> None:
        self._payload = payload

    @property
    def payload(self) -> P_co:
        """The decoded payload."""
        return self._payload

    @property
    @abstractmethod
    def name(self) -> str:
        """The payload's wire name."""

    @property
    @abstractmethod
    def metadata(self) -> Metadata:
        """What travels with the message."""

    @property
    @abstractmethod
    def timestamp(self) -> datetime:
        """When the message was made (UTC)."""

    @property
    @abstractmethod
    def message_id(self) -> str:
        """The message's id; of a command also its idempotency key."""

    @property
    @abstractmethod
    def correlation_id(self) -> str:
        """The id of the message that started it all."""

    @property
    @abstractmethod
    def causation_id(self) -> str | None:
        """The id of the message whose handling sent this one; None at the start of a chain."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._payload!r})"


class _RequestMessage(Message[P_co]):
    __slots__ = ("_request",)

    def __init__(self, payload: P_co, request: Request) -> None:
        super().__init__(payload)
        self._request = request

    @property
    def name(self) -> str:
        """The payload's wire name."""
        return self._request.name

    @property
    def metadata(self) -> Metadata:
        """What travels with the message."""
        return self._request.metadata

    @property
    def timestamp(self) -> datetime:
        """When the message was made (UTC)."""
        return from_micros(self._request.timestamp)

    @property
    def message_id(self) -> str:
        """The message's id; of a command also its idempotency key."""
        return self._request.message_id

    @property
    def correlation_id(self) -> str:
        """The id of the message that started it all."""
        return self._request.correlation_id

    @property
    def causation_id(self) -> str | None:
        """The id of the message whose handling sent this one; None at the start of a chain."""
        return self._request.causation_id


class CommandMessage(_RequestMessage[P_co]):
    """A command with its envelope."""

    __slots__ = ()

    @property
    def attempt(self) -> int:
        """1 at first; more when the same message id is sent again while the outcome of a former run is unknown."""
        return self._request.attempt


class QueryMessage(_RequestMessage[P_co]):
    """A query with its envelope."""

    __slots__ = ()


class EventMessage(Message[P_co]):
    """An event with its envelope."""

    __slots__ = ("_metadata", "record")

    def __init__(self, payload: P_co, record: EventRecord, metadata: Metadata | None = None) -> None:
        self._payload = payload  # without super(): one is made for every event of a replay
        self.record = record
        self._metadata = metadata

    @property
    def name(self) -> str:
        """The payload's wire name."""
        return self.record.name

    @property
    def metadata(self) -> Metadata:
        """What travels with the message."""
        if self._metadata is None:
            self._metadata = Metadata.from_json(self.record.metadata)
        return self._metadata

    @property
    def timestamp(self) -> datetime:
        """When the event was decided (UTC). Timestamps need not rise with positions."""
        return from_micros(self.record.timestamp)

    @property
    def message_id(self) -> str:
        """The event id."""
        return self.record.event_id

    @property
    def correlation_id(self) -> str:
        """The id of the message that started it all."""
        return self.record.correlation_id

    @property
    def causation_id(self) -> str | None:
        """The id of the command that caused the event."""
        return self.record.causation_id

    @property
    def position(self) -> int:
        """The position in the one total order, from 1; 0 in an event-sourcing handler, where it is not known yet."""
        return self.record.position

    @property
    def version(self) -> int | None:
        """The event's number in its aggregate, from 1; None for an event without an aggregate id."""
        return self.record.version

    @property
    def context(self) -> str:
        """The partition of the stream."""
        return self.record.context

    @property
    def aggregate_id(self) -> str | None:
        """The aggregate (for a service event: the lock id) that the event belongs to."""
        return self.record.aggregate_id


class InvocationMessage(Message[P_co]):
    """A call of an invoker's method: the payload is the mapping of its arguments, the name ``Invoker::method``."""

    __slots__ = ("_causation_id", "_correlation_id", "_message_id", "_metadata", "_name", "_timestamp")

    def __init__(
        self,
        payload: P_co,
        *,
        name: str,
        message_id: str,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        metadata: Metadata = EMPTY_METADATA,
        timestamp: int | None = None,
    ) -> None:
        super().__init__(payload)
        self._name = name
        self._metadata = metadata
        self._timestamp = now_micros() if timestamp is None else timestamp
        self._message_id = message_id
        self._correlation_id = correlation_id or message_id
        self._causation_id = causation_id

    @property
    def name(self) -> str:
        """``Invoker::method``."""
        return self._name

    @property
    def metadata(self) -> Metadata:
        """What travels with the message."""
        return self._metadata

    @property
    def timestamp(self) -> datetime:
        """When the call was made (UTC)."""
        return from_micros(self._timestamp)

    @property
    def message_id(self) -> str:
        """The id of the call."""
        return self._message_id

    @property
    def correlation_id(self) -> str:
        """The id of the message that started it all: the call itself, unless a handler made it."""
        return self._correlation_id

    @property
    def causation_id(self) -> str | None:
        """The id of the message whose handling made the call; None outside handlers."""
        return self._causation_id
