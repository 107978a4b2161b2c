"""The requests of a :class:`RemoteStateStore`: sent until they are answered, or their time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from evento.errors import Overloaded, StoreUnavailable, error_from_data
from evento.gateway.nats import NatsConnection, NoResponders
from evento.gateway.nats.calls import Operation, encode
from evento.messages import EventRecord
from evento.state_store.port import Append, Appended, NewEvent
from evento.state_store.remote import wire
from evento.state_store.remote.appends import Outcome

__all__ = ["StoreRequests"]

_PAUSES = (0.01, 0.05, 0.1, 0.25)
"""Seconds between two looks for a server, the last one again and again."""


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

    def begin(self) -> tuple[int, float]:
        """Return what every call begins with."""
        return wire.FORMAT, self._timeout

    async def call(self, name: str, call: wire.Call, *, operation: Operation | None = None) -> Any:
        """Send a call and return its value; raise the server's error as it was there."""
        if self._calls >= self._max_calls:
            raise Overloaded(f"store.{name} was not sent: {self._calls} operations wait for the server; ask for less")
        self._calls += 1
        try:
            return await self._exchange(name, call, operation or wire.OPERATIONS[name])
        finally:
            self._calls -= 1

    async def append(self, appends: Sequence[Append]) -> Sequence[Outcome]:
        """Send appends as one call and return their outcomes, in order."""
        call = wire.AppendCall(*self.begin(), list(appends))
        outcomes = await self._exchange("append", call, wire.OPERATIONS["append"])
        if outcomes is None or len(outcomes) != len(appends):
            error = StoreUnavailable("the server answered appends with other than one outcome for each")
            error.definite = False
            raise error
        return [_outcome(append, outcome) for append, outcome in zip(appends, outcomes, strict=True)]

    async def _exchange(self, name: str, call: wire.Call, operation: Operation) -> Any:
        answer = operation.decode_answer(await self._request(name, call))
        if answer.error is not None:
            raise error_from_data(answer.error)
        return answer.value

    async def _request(self, name: str, call: wire.Call) -> bytes:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        subject = self._connection.subjects.store(name)
        unanswered = 0  # how often it was sent without hearing that nobody got it
        pauses = iter(_PAUSES)
        pause = _PAUSES[-1]

        def data(attempt: int) -> bytes:
            nonlocal unanswered
            unanswered += 1
            return encode(replace(call, remaining=deadline - loop.time()))

        while True:
            try:
                return await self._connection.request(subject, data, deadline)
            except NoResponders:
                unanswered -= 1
            except TimeoutError:
                break
            pause = next(pauses, pause)
            if loop.time() + pause >= deadline:
                break
            await asyncio.sleep(pause)
        what = "no answer came" if unanswered else "no server could be asked"
        error = StoreUnavailable(
            f"store.{name}: {what} within {self._timeout:g} s; look whether the server runs and reaches its database"
        )
        error.definite = not unanswered
        raise error


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
