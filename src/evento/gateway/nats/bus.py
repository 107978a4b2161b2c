"""The MessageBus between processes: requests travel over NATS to one of the replicas that serve their name.

A request that was sent more than once can have several runs, and the first answer is not always the last word:

* **A success** is: the event is stored, and no other run can store another one under its message id.
* **A failure of a run that knew of former attempts** (attempt 2 and later) is: before it answered it has looked the
  message id up, and written a tombstone under it if nothing was there. No run can store an event after that.
* **A failure of the first attempt's run** is not: it has written nothing down, and another run may store the event. The
  command is sent again, under a reply subject of its own, so that what still comes of former sends is ignored; the run
  that this makes, or joins, knows of former attempts. Its handler runs again, as after any lost answer.
* **A failure without a run**, or one that only says "not now", proves nothing of the other runs: it is handed out, and
  is not definite. Sending again at once would only add to what made it.

A query has no effect, so any answer is as good as another.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from evento.errors import DefinitionError, EventoError, HandlerNotFound, PayloadError, Stopped, error_from_data
from evento.gateway.bus import RequestHandler
from evento.gateway.nats.clock import ClusterClock
from evento.gateway.nats.connection import NatsConnection, NoResponders, Subscription
from evento.gateway.nats.inquirer import Inquirer, Sent
from evento.gateway.nats.receiver import Receiver
from evento.gateway.nats.subjects import QUEUE
from evento.gateway.nats.wire import decode_reply, encode_request
from evento.gateway.requests import NOT_NOW
from evento.messages import Reply, Request

__all__ = ["NatsBus"]


class NatsBus:
    """Carries requests between the bundles of a cluster.

    A name that nobody serves is waited for ``handler_grace`` seconds, then :class:`~evento.errors.HandlerNotFound`.
    When the connection is lost, requests in flight are sent again with the same message id and the next ``attempt``;
    so is one that waits for long and is known to no replica, because NATS or a handler's process lost it.
    Cancelling a request drops its answer; the handler goes on to its end or deadline.

    :param connection: an open connection, which outlives the bus.
    :param clock: the cluster's time, corrected by whoever has a server's answers; default: nothing is known of it.
    :param handler_grace: in seconds.
    :param max_running: bound on requests that this side handles at a time, waiting ones included; those of handlers
        have one of their own, as large.
    :param max_bytes: bound on their bytes, in the same way.
    """

    def __init__(
        self,
        connection: NatsConnection,
        *,
        clock: ClusterClock | None = None,
        handler_grace: float = 5.0,
        max_running: int = 16_384,
        max_bytes: int = 128 * 1024 * 1024,
    ) -> None:
        self.connection = connection
        """What it speaks over."""
        self._clock = clock or ClusterClock()
        self._grace = handler_grace
        self._subjects: dict[tuple[str, str], str] = {}
        self._served: dict[tuple[str, str], Subscription | None] = {}
        self._inquiries: dict[tuple[str, str], Subscription] = {}
        self._closed = False
        self.inquirer = Inquirer(connection)
        self.receiver = Receiver(connection, self._clock, max_running=max_running, max_bytes=max_bytes)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Serve nothing any more, and end what runs; to let it end by itself, withdraw all and wait before."""
        self._closed = True
        await asyncio.gather(*(self.withdraw(kind, name) for kind, name in list(self._served)))
        await self.receiver.stop()
        await self.inquirer.close()
        inquiries, self._inquiries = self._inquiries, {}
        await asyncio.gather(*(subscription.unsubscribe() for subscription in inquiries.values()))

    async def request(self, request: Request, deadline: float) -> Reply:
        """Send a request to a handler of its name, and return the reply: one that no other run can contradict.

        :raises HandlerNotFound: nobody served the name within the grace period.
        :raises PayloadError: the request is larger than the server takes, or the reply cannot be read.
        :raises AuthenticationError: this bundle may not send it.
        :raises Stopped: the connection was closed.
        """
        while True:
            reply, attempt, newest = await self._exchange(request, deadline)
            if reply.error is None or newest == 1:
                return reply
            if attempt == 0 or isinstance(error_from_data(reply.error), NOT_NOW):
                return Reply(error=replace(reply.error, definite=False))  # a former attempt may have taken effect
            if attempt > 1 or request.kind == "query":
                return reply
            request = replace(request, attempt=newest + 1, keyed=True)

    async def _exchange(self, request: Request, deadline: float) -> tuple[Reply, int, int]:
        """Return an answer, the attempt of the run that gave it (0: none), and the newest attempt that was sent."""
        now = asyncio.get_running_loop().time
        attempts = 1
        sent = Sent(self.inquirer, (request.kind, request.name))

        def message(attempt: int) -> bytes:
            nonlocal attempts
            attempts = attempt
            sent.sent()
            return encode_request(request, attempt=attempt, remaining=deadline - now(), sent_at=self._clock.now())

        grace = min(self._grace, 0.9 * (deadline - now()))  # the answer is to arrive before the deadline
        try:
            data = await self.connection.request(
                self._subject(request), message, math.inf, grace=grace, watch=sent.begin
            )
        except NoResponders as nobody:
            error = HandlerNotFound(
                f"nobody handles the {request.kind} {request.name!r} in the cluster "
                f"{self.connection.subjects.cluster!r}: start the bundle that has its handler",
                kind=request.kind,
                name=request.name,
            )
            error.definite = nobody.attempt == request.attempt == 1
            raise error from None
        except EventoError as error:
            if attempts > 1 or request.attempt > 1:
                error.definite = False  # it is about the last send, and a former one may have taken effect
            raise
        finally:
            self.inquirer.forget(sent)
        try:
            reply, attempt = decode_reply(data, request.name)
        except PayloadError as unreadable:
            unreadable.definite = request.kind == "query"
            raise
        return reply, attempt, request.attempt + attempts - 1

    def _subject(self, request: Request) -> str:
        key = (request.kind, request.name)
        subject = self._subjects.get(key)
        if subject is None:
            subject = self._subjects[key] = self.connection.subjects.request(*key)
        return subject

    async def serve(self, kind: str, name: str, handler: RequestHandler) -> None:
        """Start handling requests of a name; requests arrive as soon as this returns.

        :raises DefinitionError: this bus serves it already.
        :raises AuthenticationError: this bundle may not serve it.
        """
        if self._closed:
            raise Stopped(f"the {kind} {name!r} cannot be served: the bus is closed")
        key = (kind, name)
        if key in self._served:
            raise DefinitionError(f"the {kind} {name!r} is handled twice: a {kind} has one handler in the whole system")
        self._served[key] = None
        try:
            if key not in self._inquiries:  # it stays when the name is withdrawn: handlers go on
                self._inquiries[key] = await self.connection.subscribe(
                    self.connection.subjects.inquiry(kind, name), self.receiver.inquired
                )
            subscription = await self.connection.subscribe(
                self.connection.subjects.request(kind, name), self.receiver.callback(kind, name, handler), queue=QUEUE
            )
        except BaseException:
            self._served.pop(key, None)
            raise
        if key in self._served:
            self._served[key] = subscription
        else:
            await subscription.drain()  # withdrawn meanwhile

    async def withdraw(self, kind: str, name: str) -> None:
        """Stop accepting requests of a name: when this returns none will arrive; running handlers go on."""
        subscription = self._served.pop((kind, name), None)
        if subscription is not None:
            await subscription.drain()
