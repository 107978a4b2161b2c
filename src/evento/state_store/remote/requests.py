"""The requests of a :class:`RemoteStateStore`: sent until they are answered, or their time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from evento.errors import EventoError, Overloaded, PayloadError, StoreUnavailable, error_from_data
from evento.gateway.nats import NatsConnection, NoResponders
from evento.gateway.nats.calls import Operation, encode
from evento.gateway.nats.waiting import Waiting
from evento.messages import EventRecord
from evento.state_store.port import Append, Appended, NewEvent
from evento.state_store.remote import wire
from evento.state_store.remote.appends import Outcome

__all__ = ["StoreRequests"]

_PATIENCE = 2.0
"""Seconds without an answer after which a call is sent again, then twice as long, and so on: a server that was killed
tells nobody that it has taken a call with it. One that is only slow is not asked for nothing: its answer counts."""
_SENT_ONCE = frozenset({"search", "info", "verify", "purge"})
"""Operations that may take long, and are not worth a second server's work."""


class StoreRequests:
    """Sends calls to whichever server answers.

    :param timeout: seconds after which a call fails with :class:`~evento.errors.StoreUnavailable`; it is indeterminate
        when the call may have reached a server.
    :param max_calls: calls without an answer, appends not counted; beyond them :class:`~evento.errors.Overloaded`.
    """

    def __init__(self, connection: NatsConnection, *, timeout: float, max_calls: int) -> None:
        self._connection = connection
        self._timeout = timeout
        self._max_calls = max_calls
        self._calls = 0
        self.store: tuple[str, int] | None = None
        """Id and epoch of the store that is meant, once it is known."""

    def begin(self) -> tuple[int, float, tuple[str, int] | None]:
        """Return what every call begins with."""
        return wire.FORMAT, self._timeout, self.store

    async def call(self, name: str, call: wire.Call, *, operation: Operation | None = None) -> Any:
        """Send a call and return its value; raise the server's error as it was there."""
        if self._calls >= self._max_calls:
            raise Overloaded(f"store.{name} was not sent: {self._calls} operations wait for the server; ask for less")
        self._calls += 1
        try:
            value, _ = await self._exchange(name, call, operation or wire.OPERATIONS[name])
            return value
        finally:
            self._calls -= 1

    async def append(self, appends: Sequence[Append]) -> Sequence[Outcome]:
        """Send appends as one call and return their outcomes, in order."""
        call = wire.AppendCall(*self.begin(), list(appends))
        answered, unanswered = await self._exchange("append", call, wire.OPERATIONS["append"])
        if answered is None or len(answered) != len(appends):
            error = StoreUnavailable("the server answered appends with other than one outcome for each")
            error.definite = False
            raise error
        outcomes = [_outcome(append, outcome) for append, outcome in zip(appends, answered, strict=True)]
        for outcome in outcomes:
            if unanswered and isinstance(outcome, EventoError):
                outcome.definite = False  # what was sent before may have been stored, or may be still
        return outcomes

    async def _exchange(self, name: str, call: wire.Call, operation: Operation) -> tuple[Any, bool]:
        """Return the value of the answer, and whether the call was also sent without hearing what became of it."""
        data, unanswered = await self._request(name, call)
        try:
            answer = operation.decode_answer(data)
        except PayloadError as unreadable:
            error = StoreUnavailable(f"store.{name}: {unreadable}")
            error.definite = False
            raise error from unreadable
        if answer.error is not None:
            failure = error_from_data(answer.error)
            if unanswered:
                failure.definite = False
            raise failure
        return answer.value, unanswered

    async def _request(self, name: str, call: wire.Call) -> tuple[bytes, bool]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        resends = _Resends(self._timeout if name in _SENT_ONCE else _PATIENCE)

        def data(attempt: int) -> bytes:
            resends.sent()
            return encode(replace(call, remaining=deadline - loop.time()))

        subject = self._connection.subjects.store(name)
        try:
            answer = await self._connection.request(subject, data, deadline, grace=self._timeout, watch=resends.begin)
            return answer, resends.unanswered
        except NoResponders:
            asked = resends.unanswered
        except TimeoutError:
            asked = resends.unanswered or resends.is_sent
        except EventoError as error:  # the last one was not sent, or did not get there
            if resends.unanswered:
                error.definite = False
            raise
        finally:
            resends.end()
        what = "no answer came" if asked else "no server could be asked"
        failure = StoreUnavailable(
            f"store.{name}: {what} within {self._timeout:g} s; look whether the server runs and reaches its database"
        )
        failure.definite = not asked
        raise failure


class _Resends:
    """Sends one request again while no answer comes, ever more rarely; whichever answer comes first counts.

    :param patience: seconds until the first time.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._waiting: Waiting | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def unanswered(self) -> bool:
        """Whether there was a send before the last one of which nobody heard what became of it."""
        return self._waiting is not None and self._waiting.attempt > 1

    @property
    def is_sent(self) -> bool:
        """Whether the last send may have reached a server."""
        return self._waiting is not None and self._waiting.is_sent

    def begin(self, waiting: Waiting) -> None:
        """Take note of what waits for the answer."""
        self._waiting = waiting

    def sent(self) -> None:
        """Take note that it is sent now."""
        self.end()
        self._timer = asyncio.get_running_loop().call_later(self._patience, self._send_again)

    def _send_again(self) -> None:
        self._patience *= 2
        if self._waiting is not None:
            self._waiting.send_again()

    def end(self) -> None:
        """Send it no more."""
        if self._timer is not None:
            self._timer.cancel()


def _outcome(append: Append, outcome: wire.WireOutcome) -> Outcome:
    match outcome:
        case wire.Stored():
            return Appended(_record(append.event, outcome), outcome.boundary_version)
        case wire.Failed():
            return error_from_data(outcome.error)
        case _:
            return outcome


def _record(event: NewEvent, stored: wire.Stored) -> EventRecord:
    return EventRecord(
        position=stored.position,
        context=event.context,
        aggregate_id=event.aggregate_id,
        version=stored.version,
        name=event.name,
        schema_version=event.schema_version,
        kind=event.kind,
        payload=event.payload,
        metadata=event.metadata,
        event_id=event.event_id,
        command_id=event.command_id,
        correlation_id=event.correlation_id,
        causation_id=event.causation_id,
        timestamp=event.timestamp,
    )
