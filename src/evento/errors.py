"""Every error that Evento raises, in one tree.

::

    EventoError
    ├── DefinitionError              a payload, component or bundle is declared wrongly
    │   └── CapabilityError          a role did what its kind of component may not do
    ├── PayloadError                 unknown, malformed, of wrong types, or too large
    ├── HandlerNotFound              nobody handles this command or query
    ├── RequestTimeout               no answer before the deadline (indeterminate)
    ├── TooManyPendingRequests       this sender has too many requests in flight
    ├── Overloaded                   the receiver has too much to do
    ├── Stopped                      the bundle is not running
    ├── CommandRejected              the handler said no (subclass it for your own reasons)
    ├── QueryRejected                the query handler said no
    │   └── NotFound                 what was asked for does not exist
    ├── AggregateNotInitialized      a command before the aggregate's init command
    ├── AggregateAlreadyInitialized  an init command for an aggregate that exists
    ├── AggregateDeleted             a command for a deleted aggregate
    ├── ConcurrencyConflict          others kept changing the aggregate until the deadline
    ├── WouldDeadlock                the command waits for a boundary that its own cause holds
    ├── LeaseLost                    the lock of a service command was lost while it ran
    ├── HandlerError                 a handler failed with an error that is not Evento's
    ├── AuthenticationError          the token was refused
    ├── StoreUnavailable             the System State Store cannot be reached or written now
    │   ├── StoreInUse               another process holds the embedded store
    │   ├── SchemaTooNew             the database was written by a newer version
    │   └── StoreMismatch            a checkpoint belongs to another store, or lies beyond its head
    ├── ReadModelBehind              the projectors have not reached ``at_least`` in time
    └── TransientError               for users: "not now, try again" in a consumer

``error.definite`` is True when nothing happened (a retry is safe even without a message id) and False when the
outcome is unknown (ask again with the same ``message_id``).

Errors travel as data (:class:`ErrorData`): the classes above arrive as themselves, subclasses that users made of
them arrive as the nearest class above with ``.type`` naming the original, everything else as :class:`HandlerError`.
No class is ever looked up by a name from the wire outside this module.
"""

from __future__ import annotations

import traceback as _traceback
from typing import Any, ClassVar, Self

import msgspec

__all__ = [
    "AggregateAlreadyInitialized",
    "AggregateDeleted",
    "AggregateNotInitialized",
    "AuthenticationError",
    "CapabilityError",
    "CommandRejected",
    "ConcurrencyConflict",
    "DefinitionError",
    "ErrorData",
    "EventoError",
    "HandlerError",
    "HandlerNotFound",
    "LeaseLost",
    "NotFound",
    "Overloaded",
    "PayloadError",
    "QueryRejected",
    "ReadModelBehind",
    "RequestTimeout",
    "SchemaTooNew",
    "Stopped",
    "StoreInUse",
    "StoreMismatch",
    "StoreUnavailable",
    "TooManyPendingRequests",
    "TransientError",
    "WouldDeadlock",
    "error_from_data",
    "error_to_data",
]


class EventoError(Exception):
    """The base of all errors of Evento.

    ``message`` is the text for people, ``data`` what programs need (JSON values by name), ``type`` the name of the
    class that was raised, also when it was raised in another process, and ``traceback`` the text of the remote
    traceback where sending it is enabled.
    """

    definite: bool = True

    _registry: ClassVar[dict[str, type[EventoError]]] = {}

    message: str
    data: dict[str, Any]
    type: str
    traceback: str | None

    def __new__(cls, /, *args: Any, **data: Any) -> Self:
        """Set the attributes, so that they are there also in a subclass whose ``__init__`` calls no other."""
        error = super().__new__(cls, *args)
        error.message = str(args[0]) if args else ""
        error.data = data
        error.type = cls.__name__
        error.traceback = None
        return error

    def __init__(self, message: str = "", /, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data = data

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Only this module's classes are wire names: what users derive must never be found by a name that was sent.
        if cls.__module__ == __name__:
            EventoError._registry[cls.__name__] = cls

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        """Show what logs and failed tests need: the class, the message, the data, and what it was elsewhere."""
        shown = [repr(self.message), *(f"{name}={value!r}" for name, value in self.data.items())]
        if self.type != type(self).__name__:
            shown.append(f"type={self.type!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def __reduce__(self) -> Any:
        return (error_from_data, (error_to_data(self, with_traceback=True),))


EventoError._registry["EventoError"] = EventoError


class DefinitionError(EventoError):
    """A payload, component or bundle is declared wrongly; names the class, its file and line, and the mend."""


class CapabilityError(DefinitionError):
    """A component did what its role may not do, such as a projector that sends a command."""


class PayloadError(EventoError):
    """A payload is unknown, malformed, of wrong types, or too large; nothing was stored."""


class HandlerNotFound(EventoError):
    """Nobody handles this command or query."""


class RequestTimeout(EventoError):
    """No answer came before the deadline: the request may or may not have taken effect."""

    definite = False


class TooManyPendingRequests(EventoError):
    """The sender's bound on requests in flight is reached; nothing was sent."""


class Overloaded(EventoError):
    """The receiver's bounds are reached; nothing was done."""


class Stopped(EventoError):
    """The bundle is not started, or is stopping; nothing was sent, unless ``definite`` is False.

    It is False where a bundle was stopped while it handled the request, or a connection was closed under it.
    """


class CommandRejected(EventoError):
    """A command handler said no. Raise it, or a subclass, in handlers: ``CommandRejected("list is full", size=5)``."""


class QueryRejected(EventoError):
    """A query handler said no."""


class NotFound(QueryRejected):
    """What a query asked for does not exist."""


class AggregateNotInitialized(EventoError):
    """A command arrived for an aggregate that has no events yet; send its init command first."""


class AggregateAlreadyInitialized(EventoError):
    """An init command arrived for an aggregate that has events already."""


class AggregateDeleted(EventoError):
    """The aggregate is deleted: it takes no further command."""


class ConcurrencyConflict(EventoError):
    """The aggregate kept changing under the command until its deadline; nothing was stored."""


class WouldDeadlock(EventoError):
    """A command was sent from within the handling of another one that holds the same boundary."""


class LeaseLost(EventoError):
    """A service command lost its lock while its handler ran: its event was refused, its side effects may stand."""

    definite = False


class HandlerError(EventoError):
    """A handler failed with an error that is not one of Evento's; ``type`` and ``message`` are the original's."""


class AuthenticationError(EventoError):
    """The token was refused."""


class StoreUnavailable(EventoError):
    """The System State Store cannot be reached or cannot write now."""


class StoreInUse(StoreUnavailable):
    """Another process, or another bundle of this one, holds the embedded store."""


class SchemaTooNew(StoreUnavailable):
    """The database was written by a newer version of Evento."""


class StoreMismatch(StoreUnavailable):
    """A checkpoint belongs to another store, or lies beyond the head of this one."""


class ReadModelBehind(EventoError):
    """The projectors of the queried projection have not reached the position asked for in time."""


class TransientError(EventoError):
    """For users: raised in a consumer's handler it means "not now": the event is retried and never dead-lettered."""


class ErrorData(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as it travels and is stored.

    ``code`` is the name of a class of this module, ``type`` the name of the class that was raised.
    """

    code: str
    type: str
    message: str
    data: dict[str, Any] = {}
    traceback: str | None = None
    definite: bool = True


def error_to_data(error: BaseException, *, with_traceback: bool = False) -> ErrorData:
    """Turn any exception into data; values in ``error.data`` that JSON cannot hold are sent as their ``repr``."""
    text = None
    if with_traceback:
        text = getattr(error, "traceback", None) or "".join(_traceback.format_exception(error))
    text = None if text is None else _text(text)
    if not isinstance(error, EventoError):
        return ErrorData(code="HandlerError", type=type(error).__name__, message=_message(error), traceback=text)
    return ErrorData(
        code=_wire_class(type(error)).__name__,
        type=error.type,
        message=_message(error),
        data={_text(key): _plain(value) for key, value in error.data.items()},
        traceback=text,
        definite=error.definite,
    )


def error_from_data(data: ErrorData) -> EventoError:
    """Make the exception again; an unknown code becomes a :class:`HandlerError`."""
    error = EventoError._registry.get(data.code, HandlerError)(data.message, **data.data)
    error.type = data.type
    error.traceback = data.traceback
    if error.definite != data.definite:
        error.definite = data.definite
    return error


def _wire_class(cls: type[EventoError]) -> type[EventoError]:
    for base in cls.__mro__:
        if EventoError._registry.get(base.__name__) is base:
            return base
    return HandlerError


def _message(error: BaseException) -> str:
    try:
        return _text(str(error))
    except Exception as other:  # a __str__ of a user
        return f"its message cannot be read: {type(other).__name__}"


def _plain(value: Any) -> Any:
    """Return a value as JSON will give it back; its ``repr`` when JSON cannot hold it."""
    try:
        plain = msgspec.json.decode(msgspec.json.encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return _text(repr(value))
    return plain if plain is not None or value is None else repr(value)


def _text(text: str) -> str:
    """Return text without what encoders and stores refuse: lone surrogates and NUL."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
