"""What a failure means for a consumer: wait and try again, or give the event up."""

from __future__ import annotations

import random
from typing import Any, TypeGuard

from sqlalchemy.exc import DBAPIError

from evento.databases import is_outage
from evento.errors import EventoError, NotFound, PayloadError
from evento.gateway.requests import NOT_NOW

__all__ = [
    "Backoff",
    "EventGone",
    "SagaError",
    "TransactionTooLong",
    "UndecodableEvent",
    "is_transient",
    "is_undecodable",
]

MAX_DELAY = 30.0
MIN_DELAY = 0.01
"""No wait is shorter, whatever the handler says: a retry must not become a busy loop."""

_TRANSIENT = (*NOT_NOW, ConnectionError)


class UndecodableEvent(PayloadError):
    """The stored payload does not fit the class of the handler: no retry will change that."""

    def __init__(self, message: str = "", /, **data: Any) -> None:
        super().__init__(message, **data)
        self.type = PayloadError.__name__


class SagaError(EventoError):
    """A saga's handler left a state that cannot be kept; nothing of it was stored."""


class TransactionTooLong(EventoError):
    """A handler kept the checkpoint's transaction open while it waited for something else; it was rolled back."""


class EventGone(NotFound):
    """The event in the queue cannot be handled any more: it was purged, or its handler is gone."""

    def __init__(self, message: str = "", /, **data: Any) -> None:
        super().__init__(message, **data)
        self.type = NotFound.__name__


def is_transient(error: BaseException) -> bool:
    """Whether the failure is one of circumstances, and not of the event.

    Looks at the error and at what it was explicitly raised from (``raise ... from error``), not at what happened to be
    handled when it was raised. A group, as a ``TaskGroup`` raises it, is transient when all errors in it are.
    """
    return _is_transient(error, set())


def _is_transient(error: BaseException, seen: set[int]) -> bool:
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, DBAPIError):
            if is_outage(current) and not is_undecodable(current):
                return True
        elif isinstance(current, _TRANSIENT):
            return True
        if isinstance(current, BaseExceptionGroup) and all(_is_transient(one, {*seen}) for one in current.exceptions):
            return True
        current = current.__cause__
    return False


def is_undecodable(error: BaseException) -> TypeGuard[DBAPIError]:
    """Whether SQLite's driver has met a stored text that is no UTF-8: an OperationalError, that never passes."""
    return isinstance(error, DBAPIError) and str(error.orig).startswith("Could not decode to UTF-8")


class Backoff:
    """Waiting times between attempts: doubled each time up to 30 seconds.

    ``jitter`` is the share by which a time may differ, so that many who wait do not come back together.
    """

    def __init__(self, first: float = 0.1, *, jitter: float = 0.2) -> None:
        self._first = min(max(first, MIN_DELAY), MAX_DELAY)
        self._jitter = jitter
        self._next = self._first

    def next(self) -> float:
        """Return the seconds to wait now."""
        delay = self._next
        self._next = min(delay * 2, MAX_DELAY)
        return delay * random.uniform(1 - self._jitter, 1 + self._jitter)  # noqa: S311 - not a secret

    def reset(self) -> None:
        """Start again with the shortest time."""
        self._next = self._first
