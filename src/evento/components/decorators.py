"""The handler decorators: they mark a method; everything else is resolved when the component class is made."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from types import FunctionType
from typing import Any, TypeVar, cast, overload

from evento.components.definition import HandlerKind
from evento.components.invocation import invoking
from evento.errors import DefinitionError

__all__ = [
    "HandlerMark",
    "aggregate_command_handler",
    "command_handler",
    "event_handler",
    "event_sourcing_handler",
    "invocation_handler",
    "mark_of",
    "query_handler",
    "saga_event_handler",
]

F = TypeVar("F", bound=Callable[..., Any])
A = TypeVar("A", bound=Callable[..., Awaitable[Any]])
_MARK = "__evento_handler__"
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class HandlerMark:
    """What a decorator has noted on a method: the kind of handler and the options of that kind."""

    kind: HandlerKind
    init: bool = False
    retry: int = 3
    retry_delay: timedelta = _SECOND
    executor: str | None = None
    association_property: str | None = None

    @property
    def decorator(self) -> str:
        """The decorator as users write it."""
        return f"@{_NAMES[self.kind]}"


_NAMES = {
    HandlerKind.AGGREGATE_COMMAND: "aggregate_command_handler",
    HandlerKind.EVENT_SOURCING: "event_sourcing_handler",
    HandlerKind.COMMAND: "command_handler",
    HandlerKind.QUERY: "query_handler",
    HandlerKind.EVENT: "event_handler",
    HandlerKind.SAGA_EVENT: "saga_event_handler",
    HandlerKind.INVOCATION: "invocation_handler",
}


def mark_of(value: object) -> HandlerMark | None:
    """Return the mark of a class attribute; None when it is no handler."""
    mark = inspect.getattr_static(value, _MARK, None)  # class attributes may be anything, also proxies
    return mark if isinstance(mark, HandlerMark) else None


@overload
def aggregate_command_handler(function: F, /) -> F: ...
@overload
def aggregate_command_handler(*, init: bool = False, executor: str | None = None) -> Callable[[F], F]: ...
def aggregate_command_handler(
    function: F | None = None, /, *, init: bool = False, executor: str | None = None
) -> F | Callable[[F], F]:
    """Mark the method of an aggregate that decides a domain command: it returns the one event, or raises.

    ``init=True``: the command gives birth to the aggregate, so there is no state yet. ``executor`` moves a plain
    ``def`` to threads: ``"threads"``, or the name of an executor of the bundle.
    """
    return _decorate(HandlerMark(HandlerKind.AGGREGATE_COMMAND, init=init, executor=executor), function)


@overload
def event_sourcing_handler(function: F, /) -> F: ...
@overload
def event_sourcing_handler() -> Callable[[F], F]: ...
def event_sourcing_handler(function: F | None = None, /) -> F | Callable[[F], F]:
    """Mark the method of an aggregate that folds an event into the state.

    It returns the new state, or None when it has changed the state in place. It runs for the new event and again on
    every replay, so it must be a plain ``def`` that depends on the state and the event alone.
    """
    return _decorate(HandlerMark(HandlerKind.EVENT_SOURCING), function)


@overload
def command_handler(function: F, /) -> F: ...
@overload
def command_handler(*, executor: str | None = None) -> Callable[[F], F]: ...
def command_handler(function: F | None = None, /, *, executor: str | None = None) -> F | Callable[[F], F]:
    """Mark the method of a service that handles a service command: it returns an event, or None for no event.

    ``executor`` moves a plain ``def`` to threads: ``"threads"``, or the name of an executor of the bundle.
    """
    return _decorate(HandlerMark(HandlerKind.COMMAND, executor=executor), function)


@overload
def query_handler(function: F, /) -> F: ...
@overload
def query_handler(*, executor: str | None = None) -> Callable[[F], F]: ...
def query_handler(function: F | None = None, /, *, executor: str | None = None) -> F | Callable[[F], F]:
    """Mark the method of a projection that answers a query.

    ``executor`` moves a plain ``def`` to threads: ``"threads"``, or the name of an executor of the bundle.
    """
    return _decorate(HandlerMark(HandlerKind.QUERY, executor=executor), function)


@overload
def event_handler(function: F, /) -> F: ...
@overload
def event_handler(
    *, retry: int = 3, retry_delay: timedelta = _SECOND, executor: str | None = None
) -> Callable[[F], F]: ...
def event_handler(
    function: F | None = None,
    /,
    *,
    retry: int = 3,
    retry_delay: timedelta = _SECOND,
    executor: str | None = None,
) -> F | Callable[[F], F]:
    """Mark the method of a projector or observer that handles an event.

    ``retry``: attempts after the first, -1 for ever (which blocks the consumer); between attempts ``retry_delay``,
    doubled each time up to 30 s. Then the event goes to the dead event queue. ``executor`` moves a plain
    ``def`` to threads; a partitioned one lets all events of the component be handled side by side, those of an
    aggregate in their order.
    """
    return _decorate(HandlerMark(HandlerKind.EVENT, retry=retry, retry_delay=retry_delay, executor=executor), function)


@overload
def saga_event_handler(function: F, /) -> F: ...
@overload
def saga_event_handler(
    *, association_property: str, init: bool = False, retry: int = 3, retry_delay: timedelta = _SECOND
) -> Callable[[F], F]: ...
def saga_event_handler(
    function: F | None = None,
    /,
    *,
    association_property: str | None = None,
    init: bool = False,
    retry: int = 3,
    retry_delay: timedelta = _SECOND,
) -> F | Callable[[F], F]:
    """Mark the method of a saga that handles an event; ``association_property`` is mandatory.

    The saga is found whose association of that name equals the event's field of that name. ``init=True``: when there
    is none the event begins one; other handlers ignore the event then. ``retry`` and ``retry_delay`` are those of
    :func:`event_handler`.
    """
    mark = HandlerMark(
        HandlerKind.SAGA_EVENT,
        init=init,
        retry=retry,
        retry_delay=retry_delay,
        association_property=association_property,
    )
    return _decorate(mark, function)


@overload
def invocation_handler(function: A, /) -> A: ...
@overload
def invocation_handler() -> Callable[[A], A]: ...
def invocation_handler(function: A | None = None, /) -> A | Callable[[A], A]:
    """Mark the method of an invoker that applications call: ``self.commands`` and ``self.queries`` work in it.

    The method is an ``async def``, or a ``def`` that returns an awaitable; calling it gives a coroutine.
    """
    mark = HandlerMark(HandlerKind.INVOCATION)

    def decorate(method: A) -> A:
        # functools.wraps carries the mark over, so a refused method is refused before it is wrapped.
        marked = _mark(mark, method)
        return cast(A, invoking(cast(FunctionType, marked)))

    return decorate if function is None else decorate(function)


def _decorate(mark: HandlerMark, function: F | None) -> F | Callable[[F], F]:
    return functools.partial(_mark, mark) if function is None else _mark(mark, function)


def _mark(mark: HandlerMark, function: F) -> F:
    if not isinstance(function, FunctionType):
        raise DefinitionError(
            f"{mark.decorator} marks methods, not {function!r}: put it directly above 'def' (under other decorators), "
            "and its options by name"
        )
    code = function.__code__
    earlier = mark_of(function)
    if earlier is not None:
        raise DefinitionError(
            f"{function.__qualname__} ({code.co_filename}:{code.co_firstlineno}): {mark.decorator} on a method that is "
            f"marked with {earlier.decorator} already: write one method for each",
            file=code.co_filename,
            line=code.co_firstlineno,
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError(
            f"{function.__qualname__} ({code.co_filename}:{code.co_firstlineno}): a handler cannot yield: return one "
            "value",
            file=code.co_filename,
            line=code.co_firstlineno,
        )
    setattr(function, _MARK, mark)
    return function
