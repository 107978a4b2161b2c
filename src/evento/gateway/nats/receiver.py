"""The receiving side: requests that arrived run within bounds, before their deadline, once at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from evento.errors import EventoError, HandlerError, Overloaded, PayloadError, Stopped, error_to_data
from evento.gateway.bus import RequestHandler, expired
from evento.gateway.deadlines import Deadlines
from evento.gateway.nats.clock import ClusterClock
from evento.gateway.nats.connection import Delivery, NatsConnection
from evento.gateway.nats.outcomes import Outcomes
from evento.gateway.nats.wire import Found, decode_inquiry, decode_request, encode_found, encode_reply
from evento.messages import Reply, Request

__all__ = ["Receiver"]

logger = logging.getLogger("evento.gateway.nats")
LONGEST = 300.0
"""The longest time that a request may run, in seconds, whatever its sender says."""
MAX_RESENDS = 100
"""How often a request may be sent again while it runs, and wait for that run."""

MAX_FOUND_BYTES = 256 * 1024
"""Replies in one answer to an inquiry are together no larger than this, but for the last of them."""


class _Asker(NamedTuple):
    """Who waits for the outcome of a run, and how long."""

    delivery: Delivery
    request: Request
    deadline: float


class _Run:
    """A handler at work; ``refusal`` is what askers are told when it was ended from here."""

    __slots__ = ("expired", "first", "handler", "key", "others", "receiver", "refusal", "slot", "task")

    def __init__(self, receiver: Receiver, first: _Asker, handler: RequestHandler, key: tuple[str, str, str]) -> None:
        self.receiver = receiver
        self.first = first
        self.handler = handler
        self.key = key
        self.others: list[_Asker] | None = None
        self.expired = False
        self.refusal: EventoError | None = None
        self.task: asyncio.Task[None] | None = None
        self.slot = 0

    def askers(self) -> list[_Asker]:
        """Return all who wait for the outcome."""
        return [self.first, *self.others] if self.others else [self.first]

    def attach(self, asker: _Asker) -> bool:
        """Let a request that came again wait for this run, if it can."""
        if (
            asker.request.attempt == 1
            or asker.request.payload != self.first.request.payload
            or self.refusal is not None
        ):
            return False
        if self.others is None:
            self.others = []
        if len(self.others) >= MAX_RESENDS:
            return False
        self.others.append(asker)
        return True

    def expire(self) -> None:
        """End at the deadline."""
        self.expired = True
        if self.task is not None:
            self.task.cancel()

    def ended(self, task: asyncio.Task[None]) -> None:
        """Tell the receiver."""
        self.receiver._ended(self, task)


class Receiver:
    """Runs the requests that come to one instance.

    What would be too much is refused at once with :class:`~evento.errors.Overloaded`. Requests that handlers send
    (``depth`` > 0) have bounds of their own, as large: a crowd outside must not keep a handler from its end. What has
    expired is not started. A request that is sent again while it runs here waits for the same outcome.

    :param connection: takes the replies.
    :param clock: tells how long a request was on its way.
    :param max_running: bound on requests that came and are not answered.
    :param max_bytes: bound on their bytes.
    """

    def __init__(self, connection: NatsConnection, clock: ClusterClock, *, max_running: int, max_bytes: int) -> None:
        self._connection = connection
        self._clock = clock
        self._max_running = max_running
        self._max_bytes = max_bytes
        self._runs: dict[tuple[str, str, str], _Run] = {}
        self._all: set[_Run] = set()
        self._asked: dict[bytes, _Run] = {}  # by the inbox that waits for the outcome
        self._outcomes = Outcomes()
        self._count = [0, 0]  # outer, nested
        self._bytes = [0, 0]
        self._deadlines = Deadlines()
        self._stopping = False
        self.malformed = 0
        self.refused = 0
        self.expired = 0
        self.attached = 0

    @property
    def running(self) -> int:
        """How many requests came and are not answered."""
        return sum(self._count)

    def callback(self, kind: str, name: str, handler: RequestHandler) -> Callable[[Delivery], None]:
        """Return what takes the deliveries of a kind and name."""

        def take(delivery: Delivery) -> None:
            try:
                received = decode_request(delivery.data, kind, name)
            except PayloadError as error:
                self._count_malformed(error)
                self._answer(delivery, name, _failure(error))
                return
            now = asyncio.get_running_loop().time()
            late = self._clock.elapsed_since(received.sent_at)
            deadline = now + min(received.remaining, LONGEST) - late
            self._take(_Asker(delivery, received.request, deadline), handler, now)

        return take

    def _take(self, asker: _Asker, handler: RequestHandler, now: float) -> None:
        request = asker.request
        outcome = self._outcomes.take(asker.delivery.inbox) if self._outcomes else None
        if outcome is not None:
            asker.delivery.respond(outcome)
            return
        if asker.deadline <= now:
            self.expired += 1
            self._answer(asker.delivery, request.name, _failure(expired(request)))
            return
        key = (request.kind, request.name, request.message_id)
        run = self._runs.get(key)
        if run is not None and run.attach(asker):
            self.attached += 1
            self._asked[asker.delivery.inbox] = run
            return
        refusal = self._refusal(request, len(asker.delivery.data))
        if refusal is not None:
            self.refused += 1
            self._answer(asker.delivery, request.name, _failure(refusal))
            return
        self._start(_Run(self, asker, handler, key))

    def _refusal(self, request: Request, size: int) -> EventoError | None:
        if self._stopping:
            return Stopped(f"{request.name} was refused: the bundle that handles it is stopping")
        nested = request.depth > 0
        count, waiting = self._count[nested], self._bytes[nested]
        if count == 0 or (count < self._max_running and waiting + size <= self._max_bytes):
            return None
        return Overloaded(
            f"{request.name} was refused: {count} requests of {waiting:,} bytes are under way where it is handled; "
            "send fewer at a time, or run more replicas",
            running=count,
            bytes=waiting,
        )

    def _start(self, run: _Run) -> None:
        asker = run.first
        nested = asker.request.depth > 0
        self._count[nested] += 1
        self._bytes[nested] += len(asker.delivery.data)
        self._all.add(run)
        self._runs.setdefault(run.key, run)
        self._asked[asker.delivery.inbox] = run
        task = run.task = asyncio.get_running_loop().create_task(self._run(run))
        run.slot = self._deadlines.watch(asker.deadline, run)
        task.add_done_callback(run.ended)

    async def _run(self, run: _Run) -> None:
        request, name = run.first.request, run.first.request.name
        attempt = request.attempt
        try:
            reply = await run.handler(request, run.first.deadline)
        except Exception as error:
            logger.exception("the handler of %s failed outside of what it answers for", name)
            reply, attempt = _failure(error), 0  # nobody has looked what became of former attempts
        if not self._connection.is_writable:
            await self._connection.writable()
        for asker in run.askers():
            self._answer(asker.delivery, name, reply, attempt, asker.deadline)

    def _ended(self, run: _Run, task: asyncio.Task[None]) -> None:
        """Give back what a run held; answer, or run again, for whoever got no answer from it."""
        self._deadlines.forget(run.slot, run)
        nested = run.first.request.depth > 0
        self._count[nested] -= 1
        self._bytes[nested] -= len(run.first.delivery.data)
        self._all.discard(run)
        if self._runs.get(run.key) is run:
            del self._runs[run.key]
        for asker in run.askers():
            if self._asked.get(asker.delivery.inbox) is run:
                del self._asked[asker.delivery.inbox]
        if not task.cancelled():
            task.result()
            return
        now = asyncio.get_running_loop().time()
        for asker in run.askers():
            if run.refusal is not None:
                self._answer(asker.delivery, asker.request.name, _failure(run.refusal), run.first.request.attempt)
            elif not run.expired:
                failure = HandlerError(f"the handler of {asker.request.name} was cancelled from within")
                failure.definite = False
                self._answer(asker.delivery, asker.request.name, _failure(failure), run.first.request.attempt)
            elif asker.deadline > now:  # sent again with more time than the first send had
                self._take(asker, run.handler, now)

    def inquired(self, delivery: Delivery) -> None:
        """Tell who asked for requests of its own which of them are here."""
        try:
            numbers = decode_inquiry(delivery.data)
        except PayloadError as error:
            self._count_malformed(error)
            return
        inbox = delivery.inbox.rsplit(b".", 2)[0]
        self._outcomes.forget_expired()
        found, size = Found([], []), 0
        for number in numbers:
            asker = b"%b.%d" % (inbox, number)
            if asker in self._asked:
                found.running.append(number)
            elif size < MAX_FOUND_BYTES and (reply := self._outcomes.take(asker)) is not None:
                found.ended.append((number, reply))
                size += len(reply)
            elif asker in self._outcomes:
                found.running.append(number)  # to be asked for again
        try:
            delivery.respond(encode_found(found))
        except PayloadError:  # too large together: what is not found is sent again
            delivery.respond(encode_found(Found(found.running, [])))

    def _answer(
        self, delivery: Delivery, name: str, reply: Reply, attempt: int = 0, deadline: float | None = None
    ) -> None:
        """Give the reply of the run of an attempt; 0: nothing ran."""
        try:
            frame = encode_reply(reply, attempt)
            delivery.respond(frame)
            if deadline is not None and not delivery.is_answerable:
                self._outcomes.keep(delivery.inbox, frame, deadline)
        except Exception as error:  # too large, or something that msgpack cannot hold
            refusal = PayloadError(f"the answer to {name} cannot be sent: {str(error)[:500]}", name=name)
            refusal.definite = reply.event is None
            delivery.respond(encode_reply(_failure(refusal), attempt))

    def _count_malformed(self, error: PayloadError) -> None:
        self.malformed += 1
        if self.malformed & (self.malformed - 1) == 0:  # the first, the second, the fourth ...
            logger.error("%d malformed requests so far, the last one: %s", self.malformed, error)

    async def stop(self) -> None:
        """End all that runs, up to what cannot be cancelled; senders get :class:`Stopped`, not definite."""
        self._stopping = True
        self._deadlines.close()
        runs = list(self._all)
        for run in runs:
            run.refusal = Stopped(
                f"the bundle that handled {run.first.request.name} was stopped; ask again with the same message id"
            )
            run.refusal.definite = False
            if run.task is not None:
                run.task.cancel()
        await asyncio.gather(*(run.task for run in runs if run.task is not None), return_exceptions=True)


def _failure(error: BaseException) -> Reply:
    return Reply(error=error_to_data(error))
