"""Serving appends: a bundle's batch goes into the store's own queue, and is answered when all of it is answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from evento.errors import ErrorData, EventoError, PayloadError, StoreMismatch, StoreUnavailable, error_to_data
from evento.gateway.nats import Delivery
from evento.gateway.nats.calls import Answer, encode
from evento.server.store.counters import StoreCounters
from evento.state_store import AlreadyStored, Append, Appended, AppendOutcome, Refused, StateStore
from evento.state_store.remote import wire

__all__ = ["Appending", "admit"]

logger = logging.getLogger("evento.server.store")

_MAX_WORDS = 1000
"""Characters that are left of an error's message where errors are too large together."""


class Appending:
    """Serves ``store.append`` without a task for each request: the futures of the store tell when it is done."""

    def __init__(
        self,
        store: StateStore,
        counters: StoreCounters,
        *,
        stored: Callable[[int], None],
        max_answer: int,
        payload_limit: int,
    ) -> None:
        self._store = store
        self._counters = counters
        self._stored = stored
        self._max_answer = max_answer
        self._payload_limit = payload_limit
        self._open: set[Batch] = set()
        self._idle: asyncio.Event | None = None

    def serve(self, delivery: Delivery) -> None:
        """Queue a batch of appends."""
        counters = self._counters
        try:
            call: wire.AppendCall = wire.OPERATIONS["append"].decode_call(delivery.data)
            admit("append", call, self._store, counters)
        except EventoError as error:
            counters.errors["append"] += 1
            delivery.respond(encode(Answer[None](error_to_data(error))))
            return
        batch = Batch(delivery, len(call.appends), self._answer)
        self._open.add(batch)
        counters.in_flight += 1
        for number, append in enumerate(call.appends):
            self._queue(batch, number, append)
        if not call.appends:
            self._answer(batch)

    async def drained(self) -> None:
        """Wait until every batch is answered; the store brings each append to an outcome."""
        if self._open:
            self._idle = asyncio.Event()
            await self._idle.wait()

    def _queue(self, batch: Batch, number: int, append: Append) -> None:
        try:
            self._check(append)
            future = self._store.append(append)
        except Exception as error:
            batch.settle(number, self._failed(append, error))
            return
        future.add_done_callback(lambda done: batch.settle(number, self._outcome(append, done)))

    def _check(self, append: Append) -> None:
        size = len(append.event.payload)
        if size > self._payload_limit:
            raise PayloadError(
                f"{append.event.name} has {size:,} bytes, over the server's limit of {self._payload_limit:,}: keep "
                "large data elsewhere, or raise payload_limit",
                limit=self._payload_limit,
                size=size,
            )

    def _outcome(self, append: Append, future: asyncio.Future[AppendOutcome]) -> wire.WireOutcome:
        counters = self._counters
        if future.cancelled():
            error: BaseException | None = EventoError("the append was cancelled in the server")
        else:
            error = future.exception()
        if error is not None:
            return self._failed(append, error)
        outcome = future.result()
        counters.outcomes[type(outcome).__name__] += 1
        if isinstance(outcome, Appended):
            counters.appended += 1
            counters.appended_bytes += len(append.event.payload)
            record = outcome.record
            self._stored(record.position)
            return wire.Stored(record.position, record.version, outcome.boundary_version)
        return outcome

    def _failed(self, append: Append, error: BaseException) -> wire.Failed:
        if not isinstance(error, EventoError):
            logger.error("an append of %s failed", append.event.name, exc_info=error)
        self._counters.outcomes[type(error).__name__] += 1
        return wire.Failed(error_to_data(error))

    def _answer(self, batch: Batch) -> None:
        self._open.discard(batch)
        self._counters.in_flight -= 1
        self._counters.took("append", asyncio.get_running_loop().time() - batch.since)
        try:
            batch.delivery.respond(self._encoded(batch))
        except EventoError:
            logger.exception("the outcomes of %d appends could not be answered", len(batch.outcomes))
        finally:
            if not self._open and self._idle is not None:
                self._idle.set()

    def _encoded(self, batch: Batch) -> bytes:
        data = encode(Answer(None, batch.outcomes))
        if len(data) <= self._max_answer:
            return data
        return encode(Answer(None, [_shortened(outcome) for outcome in batch.outcomes]))


def admit(name: str, call: wire.Call, store: StateStore, counters: StoreCounters) -> None:
    """Refuse a call that must not be started; nothing has happened then.

    A sender that has sent the same call before, and does not know what became of that, knows that the refusal tells of
    this one only.

    :raises StoreUnavailable: its deadline had passed when it was sent.
    :raises StoreMismatch: it was meant for another store, or another epoch of it.
    """
    if call.remaining <= 0:
        counters.expired += 1
        raise StoreUnavailable(
            f"store.{name} was not started: it was sent {-call.remaining:g} s after its deadline; look what keeps "
            "the bundle's event loop busy"
        )
    if call.store is None or call.store == (store.store_id, store.epoch):
        return
    meant, epoch = call.store
    raise StoreMismatch(
        f"the server keeps the store {store.store_id} (epoch {store.epoch}), and the bundle began with {meant} (epoch "
        f"{epoch}): servers of one cluster must share one PostgreSQL; if the store was replaced, restart the bundle"
    )


def _shortened(outcome: wire.WireOutcome | None) -> wire.WireOutcome | None:
    """Leave out what can be asked for again: stored events, the details of errors."""
    match outcome:
        case AlreadyStored(record) if record is not None:
            untold = StoreUnavailable(
                f"{record.name} is stored already, and too large to be answered with others: ask again with the same id"
            )
            untold.definite = False
            return wire.Failed(error_to_data(untold))
        case Refused(error):
            return Refused(_brief(error))
        case wire.Failed(error):
            return wire.Failed(_brief(error))
    return outcome


def _brief(error: ErrorData) -> ErrorData:
    return ErrorData(error.code, error.type, error.message[:_MAX_WORDS], definite=error.definite)


class Batch:
    """One request of appends: its outcomes come in any order and are answered in theirs."""

    __slots__ = ("_done", "_missing", "delivery", "outcomes", "since")

    def __init__(self, delivery: Delivery, size: int, done: Callable[[Batch], None]) -> None:
        self.delivery = delivery
        self.outcomes: list[wire.WireOutcome | None] = [None] * size
        self.since = asyncio.get_running_loop().time()
        self._missing = size
        self._done = done

    def settle(self, number: int, outcome: wire.WireOutcome) -> None:
        """Note an outcome; the last one answers the request."""
        self.outcomes[number] = outcome
        self._missing -= 1
        if not self._missing:
            self._done(self)
