"""What both gateways do: bound the requests in flight, make the envelope from its cause, keep the deadline."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TypeAlias

from msgspec.structs import replace

from evento.errors import (
    ConcurrencyConflict,
    EventoError,
    HandlerNotFound,
    LeaseLost,
    Overloaded,
    ReadModelBehind,
    RequestTimeout,
    Stopped,
    StoreUnavailable,
    TooManyPendingRequests,
    TransientError,
    error_from_data,
)
from evento.gateway.bus import MessageBus
from evento.gateway.deadlines import Deadlines
from evento.gateway.handling import Handling
from evento.messages import EMPTY_METADATA, Message, Metadata, Reply, Request

__all__ = ["MAX_TIMEOUT", "NOT_NOW", "Correlate", "RequestSender"]

MAX_TIMEOUT = 300.0
"""The longest deadline of a request, in seconds."""

NOT_NOW = (
    ConcurrencyConflict,
    HandlerNotFound,
    LeaseLost,
    Overloaded,
    ReadModelBehind,
    RequestTimeout,
    Stopped,
    StoreUnavailable,
    TooManyPendingRequests,
    TransientError,
)
"""Errors that say nothing about the command itself, and so nothing about a former attempt with the same id.

Their answer is to send it again, so consumers do that for as long as it takes.
"""

Correlate: TypeAlias = Callable[[Metadata, Message | None], Metadata]


class RequestSender:
    """Sends the requests of one bundle; both of its gateways share it.

    :param bus: carries the requests.
    :param correlate: may change the metadata of every request; None: metadata flows unchanged.
    :param max_in_flight: bound on requests without an answer; beyond it :class:`TooManyPendingRequests`. Requests that
        running handlers send have a bound of their own, as large: a crowd outside must not keep a handler from its end.
    """

    def __init__(self, bus: MessageBus, *, correlate: Correlate | None = None, max_in_flight: int = 2048) -> None:
        self._bus = bus
        self._correlate = correlate
        self._max_in_flight = max_in_flight
        self._open = OpenIds()
        self._deadlines = Deadlines()
        self._draining = False
        self._closed = False
        self._nested = 0
        self.in_flight = 0

    def drain(self) -> None:
        """Refuse further requests with :class:`~evento.errors.Stopped`, but for those that running handlers send."""
        self._draining = True

    def close(self) -> None:
        """Refuse all further requests with :class:`~evento.errors.Stopped`; those in flight go on."""
        self._closed = True
        self._deadlines.close()

    def metadata(self, given: Mapping[str, str] | None, handling: Handling | None) -> Metadata:
        """Return the metadata of a message: what flows from the handled one, and what the sender gave over it."""
        metadata = handling.metadata if handling is not None else EMPTY_METADATA
        if given:
            metadata = metadata.merged(Metadata.checked(given)) if metadata else Metadata.checked(given)
        if self._correlate is not None:
            metadata = Metadata.checked(self._correlate(metadata, handling.message if handling else None))
        return metadata

    async def request(self, request: Request, timeout: float) -> Reply:
        """Send a request and return its reply; raise its error, or :class:`RequestTimeout` at the deadline."""
        if not 0 < timeout <= MAX_TIMEOUT:
            raise ValueError(f"timeout must be more than 0 and at most {MAX_TIMEOUT:g} seconds, not {timeout!r}")
        nested = request.depth > 0
        refusal = self._refusal(request, nested=nested)
        if refusal is not None:
            refusal.definite = request.message_id not in self._open
            raise refusal
        self.in_flight += 1
        self._nested += nested
        try:
            if request.keyed:
                return await self._keyed(request, timeout)
            return await self._exchange(request, timeout)
        finally:
            self.in_flight -= 1
            self._nested -= nested

    def _refusal(self, request: Request, *, nested: bool) -> EventoError | None:
        if self._closed or (self._draining and not nested):
            return Stopped(
                f"{request.name} was not sent: the bundle is not running; start it, or send before stopping it"
            )
        waiting = self._nested if nested else self.in_flight - self._nested
        if waiting < self._max_in_flight:
            return None
        return TooManyPendingRequests(
            f"{request.name} was not sent: {waiting} requests of this bundle wait for an answer; send fewer at a time, "
            "or raise max_in_flight_requests",
            limit=self._max_in_flight,
        )

    async def _keyed(self, request: Request, timeout: float) -> Reply:
        """Send a request whose id may have been sent before; remember the id until an answer is definite."""
        message_id = request.message_id
        attempt = self._open.begin(message_id)
        definite = False
        try:
            reply = await self._exchange(request if attempt == 1 else replace(request, attempt=attempt), timeout)
            definite = True
            return reply
        except EventoError as error:
            if attempt > 1 and isinstance(error, NOT_NOW):
                error.definite = False  # a former attempt may have taken effect
            definite = error.definite
            raise
        finally:
            if definite:
                self._open.end(message_id)

    async def _exchange(self, request: Request, timeout: float) -> Reply:
        deadline = asyncio.get_running_loop().time() + timeout
        timer = self._deadlines.at(deadline)
        try:
            with timer:
                reply = await self._bus.request(request, deadline)
        except TimeoutError:
            if not timer.expired:
                raise
            mend = (
                "it may or may not have taken effect; send it again with the same message_id to learn which"
                if request.kind == "command"
                else "ask again, or give it a longer timeout"
            )
            raise RequestTimeout(
                f"{request.name} ({request.message_id}) got no answer within {timeout:g} s: {mend}",
                name=request.name,
                message_id=request.message_id,
                timeout=timeout,
            ) from None
        if reply.error is not None:
            raise error_from_data(reply.error)
        return reply


class OpenIds:
    """The message ids that were sent and have no definite answer yet: sending one again is a resend.

    Bounded: beyond ``limit`` the oldest are forgotten; they are far older than the longest deadline by then.
    """

    def __init__(self, limit: int = 100_000) -> None:
        self._attempts: OrderedDict[str, int] = OrderedDict()
        self._limit = limit

    def begin(self, message_id: str) -> int:
        """Note a send; return its attempt: 1, or more when former ones are open."""
        attempt = self._attempts.get(message_id, 0) + 1
        self._attempts[message_id] = attempt
        self._attempts.move_to_end(message_id)
        if len(self._attempts) > self._limit:
            self._attempts.popitem(last=False)
        return attempt

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._attempts

    def end(self, message_id: str) -> None:
        """Note a definite answer."""
        self._attempts.pop(message_id, None)
