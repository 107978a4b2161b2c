"""The connection of one process to the NATS servers of its cluster: requests, subscriptions, reconnecting."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

from evento.errors import AuthenticationError, PayloadError, Stopped, StoreUnavailable, TooManyPendingRequests
from evento.gateway.nats.callbacks import StateCallback, added, called
from evento.gateway.nats.complaints import Complaints
from evento.gateway.nats.denials import denial_of
from evento.gateway.nats.held import HeldReplies
from evento.gateway.nats.link import Address, Link, LinkSettings
from evento.gateway.nats.numbers import Numbers
from evento.gateway.nats.protocol import publish_frame, sub_line, unsub_line
from evento.gateway.nats.subjects import Subjects
from evento.gateway.nats.subscriptions import Delivery, DeliveryCallback, Subscription
from evento.gateway.nats.waiting import NoResponders, Waiting, pauses

__all__ = ["Delivery", "NatsConnection", "NoResponders", "Subscription"]

logger = logging.getLogger("evento.gateway.nats")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
_INBOX_SID = b"1"
_NO_RESPONDERS = b"NATS/1.0 503"


class NatsConnection:
    """The one connection that gateway, store and registry of a process share.

    Enter it to connect. Once it has been connected it reconnects for ever, to whichever of the servers answers;
    requests in flight are then sent again, subscriptions are made again.

    :param servers: addresses such as ``nats://host:3030`` (``tls://``: encrypted or not at all); one text may hold
        several, with commas between. Servers that these name as their cluster's are tried after them.
    :param cluster: the name of the cluster.
    :param user: who this is: the bundle's id.
    :param instance: the id of this instance: replies come to its inbox, under numbers that nobody can guess. The id is
        no secret: all who are asked see it.
    :param token: proves the user; None: none is asked for.
    :param tls: demands encryption and says what to trust.
    :param start_timeout: seconds to wait for the first connection; None: for ever.
    :param progress: is told in words what is waited for; default: the log.
    :param max_in_flight: bound on requests without an answer.
    :param connect_timeout: seconds for one attempt at one server.
    :param ping_interval: seconds between questions whether the server is alive; two without an answer: it is not.
    """

    def __init__(
        self,
        servers: Sequence[str] | str,
        *,
        cluster: str,
        user: str,
        instance: str,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        start_timeout: float | None = 10.0,
        progress: Callable[[str], None] | None = None,
        max_in_flight: int = 65_536,
        connect_timeout: float = 2.0,
        ping_interval: float = 5.0,
    ) -> None:
        texts = [servers] if isinstance(servers, str) else list(servers)
        self._addresses = [Address.parse(one.strip()) for text in texts for one in text.split(",") if one.strip()]
        if not self._addresses:
            raise ValueError("no server is given: name at least one, such as nats://localhost:3030")
        random.shuffle(self._addresses)  # so that many bundles spread over the servers
        self._settings = LinkSettings(user, f"{user}/{instance}", token, tls, connect_timeout, ping_interval)
        self.subjects = Subjects(cluster)
        self._inbox = self.subjects.inbox(user, instance).encode() + b"."
        self._inboxes = f"{self.subjects.prefix}.inbox.".encode()
        self._start_timeout = start_timeout
        self._max_in_flight = max_in_flight
        self._link: Link | None = None
        self._linked = asyncio.Event()
        self._peers: list[Address] = []
        self._subscriptions: dict[bytes, Subscription] = {}
        self._sid = 1
        self._numbers = Numbers()
        self._in_flight = 0
        self._waiting: dict[bytes, Waiting] = {}
        self._held = HeldReplies()
        self._max_payload = 1024 * 1024
        self._on_reconnect: list[StateCallback] = []
        self._on_disconnect: list[StateCallback] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False
        self._complaints = Complaints(progress)
        self._inbox_denied: str | None = None
        self._asking_again: asyncio.TimerHandle | None = None
        self._told_denied: set[str] = set()
        self.reconnects = 0
        self.forged = 0
        """Messages that were dropped because their answer was to go elsewhere than to an inbox of the cluster."""
        self.refused = 0
        """Messages without a request of ours behind them that this user was not allowed to send."""
        self.dropped = 0
        """Messages that were published, or replies that were given, while there was no connection to take them."""

    # Connecting.

    async def __aenter__(self) -> Self:
        """Connect.

        :raises AuthenticationError: the server refused user and token.
        :raises StoreUnavailable: no server answered within ``start_timeout``.
        """
        try:
            async with asyncio.timeout(self._start_timeout):
                link = await self._connect()
        except TimeoutError:
            await self.close()
            complaints = str(self._complaints)
            mend = "start one with: evento server"
            if "CERTIFICATE_VERIFY_FAILED" in complaints:
                mend = "trust its authority (tls=FILE, --ca FILE or $SSL_CERT_FILE), or mend its certificate"
            raise StoreUnavailable(
                f"no Evento Server answers within {self._start_timeout:g} s: {complaints}; {mend}",
                servers=[str(address) for address in self._addresses],
            ) from None
        except BaseException:
            await self.close()
            raise
        self._keeper = asyncio.create_task(self._keep(link), name="evento-nats")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect; requests without an answer end with :class:`~evento.errors.Stopped`."""
        self._closed = True
        self._linked.set()
        if self._asking_again is not None:
            self._asking_again.cancel()
        tasks = [
            task for task in (self._keeper, *self._tasks) if task is not None and task is not asyncio.current_task()
        ]
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:  # also when this is cancelled: nothing may be left open
            link = self._link
            self._give_up()
            if link is not None:
                await link.close()

    async def _connect(self) -> Link:
        """Try all addresses, again and again, until one answers; use it."""
        pause = FIRST_PAUSE
        while True:
            for address in self._candidates():
                try:
                    link = await Link.open(
                        address, self._settings, on_message=self._on_message, on_error=self._on_server_error
                    )
                    await self._adopt(link)
                except AuthenticationError as error:
                    if self._keeper is None:
                        raise
                    self._complaints.add(address, error)
                except Exception as error:  # whatever a server, a name or a certificate can be wrong with
                    self._complaints.add(address, error)
                else:
                    logger.info("connected to %s", address)
                    self._complaints.clear()
                    self._prefer(address)
                    return link
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - not a secret
            pause = min(2 * pause, LONGEST_PAUSE)

    def _candidates(self) -> Iterator[Address]:
        yield from list(self._addresses)
        yield from [peer for peer in self._peers if peer not in self._addresses]

    def _prefer(self, address: Address) -> None:
        """Begin with the next server when this one fails: it has just failed then."""
        if address in self._addresses:
            at = self._addresses.index(address) + 1
            self._addresses = self._addresses[at:] + self._addresses[:at]

    async def _adopt(self, link: Link) -> None:
        """Subscribe everything on a new connection, and let requests go; replies that were held back go first."""
        self._inbox_denied = None
        self._told_denied.clear()
        link.write(sub_line(self._inbox + b"*", b"", _INBOX_SID))
        for subscription in self._subscriptions.values():
            subscription.denied = None
            link.write(subscription.line())
        for reply, data in self._held.release():
            link.write(publish_frame(reply, b"", data))
        self._max_payload = link.max_payload
        self._link = link
        self._linked.set()
        try:
            await link.ping()
            if self._inbox_denied is not None:
                raise AuthenticationError(
                    f"{self._settings.user!r} may not receive answers: {self._inbox_denied}", user=self._settings.user
                )
        except BaseException:
            self._give_up()
            await link.close()
            raise
        self._learn_peers(link)

    def _learn_peers(self, link: Link) -> None:
        tls = self._settings.tls is not None or bool(link.info.get("tls_required"))
        self._peers = [peer._replace(tls=tls) for peer in _parsed(link.peers)]

    def _give_up(self) -> None:
        """Take note that there is no connection: what waits for an answer will be sent again."""
        self._link = None
        if not self._closed:
            self._linked.clear()
        for waiting in self._waiting.values():
            waiting.send_again()

    async def _keep(self, link: Link) -> None:
        """Stay connected."""
        while True:
            await link.lost
            logger.warning("lost the connection to the server: %s", link.why_lost)
            self._learn_peers(link)  # of those too that have joined the cluster since
            self._give_up()
            self._call(self._on_disconnect)
            link = await self._connect()
            self.reconnects += 1
            self._call(self._on_reconnect)

    def _call(self, callbacks: list[StateCallback]) -> None:
        for callback in list(callbacks):
            self._spawn(called(callback))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def on_reconnect(self, callback: StateCallback) -> Callable[[], None]:
        """Call something whenever a lost connection is back and all is subscribed; return what ends that."""
        return added(self._on_reconnect, callback)

    def on_disconnect(self, callback: StateCallback) -> Callable[[], None]:
        """Call something whenever the connection is lost; return what ends that."""
        return added(self._on_disconnect, callback)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now, as far as one can know."""
        return self._link is not None and self._link.is_open

    @property
    def max_payload(self) -> int:
        """The largest message that the server takes, in bytes."""
        return self._max_payload

    @property
    def in_flight(self) -> int:
        """How many requests wait for an answer."""
        return self._in_flight

    # Sending.

    async def request(
        self,
        subject: str,
        data: bytes | Callable[[int], bytes],
        deadline: float,
        *,
        grace: float = 0.0,
        watch: Callable[[Waiting], None] | None = None,
    ) -> bytes:
        """Ask, and return the answer.

        A lost connection is waited out, and the request is sent again. Cancelling drops the answer.

        :param data: the message, or what makes it for an attempt: 1, then 2 and so on after a lost connection.
        :param deadline: in the event loop's time; ``math.inf`` when the caller keeps it.
        :param grace: for so many seconds, up to the deadline, somebody may begin to serve the subject.
        :param watch: is given the request before it is sent, to send it again or to answer it.
        :raises NoResponders: nobody serves the subject.
        :raises TimeoutError: no answer before the deadline.
        :raises PayloadError: the message is larger than the server takes.
        :raises AuthenticationError: this user may not send there.
        :raises TooManyPendingRequests: ``max_in_flight`` requests wait already; nothing was sent.
        :raises Stopped: the connection was closed; definite when nothing had been sent.
        """
        if self._in_flight >= self._max_in_flight:
            raise TooManyPendingRequests(
                f"{subject} was not asked: {self._in_flight} requests wait for an answer", limit=self._max_in_flight
            )
        loop = asyncio.get_running_loop()
        number = self._numbers.next()
        key = b"%d" % number
        waiting = Waiting(_encoded(subject), number)
        if watch is not None:
            watch(waiting)
        timer = loop.call_at(deadline, waiting.expire) if deadline != float("inf") else None
        self._in_flight += 1
        try:
            left: Iterator[float] | None = None
            while True:
                try:
                    return await self._exchange(waiting, key, data, deadline)
                except NoResponders:
                    if left is None:
                        left = pauses(grace, deadline)
                    pause = next(left, None)
                    if pause is None:
                        raise
                    answer = await waiting.answer_within(pause)
                    if answer is not None:
                        return answer
                    if waiting.expired:
                        raise
        finally:
            self._in_flight -= 1
            self._waiting.pop(key, None)
            if timer is not None:
                timer.cancel()
                if waiting.future.done() and not waiting.future.cancelled():
                    waiting.future.exception()  # seen, also when it came while there was no connection

    async def _exchange(
        self, waiting: Waiting, key: bytes, data: bytes | Callable[[int], bytes], deadline: float
    ) -> bytes:
        while True:
            if waiting.future.done():
                if waiting.expired:
                    raise TimeoutError
                waiting.renew()
            link = self._link
            if link is None or not link.is_writable:
                link = await self._usable(waiting, deadline)
            if not waiting.future.done():  # no answer to a former send has come meanwhile
                message = data(waiting.attempt) if callable(data) else data
                self._check_size(waiting.subject.decode(), message)
                self._waiting[key] = waiting
                waiting.is_sent = True
                link.write(publish_frame(waiting.subject, self._inbox + key, message))
            answer = await waiting.future
            if answer is not None:
                return answer
            waiting.attempt += 1

    def publish(self, subject: str, data: bytes, *, reply: str = "") -> None:
        """Send to whoever listens, without any answer; dropped while disconnected, and while the server is behind.

        :param reply: a subject of this connection's own inbox that takes the answers, any number of them; an empty one
            says that nobody listens.
        :raises PayloadError: the message is larger than the server takes.
        """
        self._check_size(subject, data)
        link = self._link
        if link is None or not link.is_writable:
            self.dropped += 1
            return
        link.write(publish_frame(_encoded(subject), reply.encode(), data))

    @property
    def inbox(self) -> str:
        """The prefix of the subjects to which this connection's answers come."""
        return self._inbox[:-1].decode()

    @property
    def is_writable(self) -> bool:
        """Whether the server keeps up with what is sent; True while disconnected."""
        return self._link is None or self._link.is_writable

    async def writable(self) -> None:
        """Wait until the server takes more: await it between large messages, so that memory stays bounded.

        Returns at once while disconnected.
        """
        link = self._link
        if link is not None and not link.is_writable:
            await link.writable()

    async def _usable(self, waiting: Waiting, deadline: float) -> Link:
        """Wait for a connection that takes messages."""
        async with asyncio.timeout_at(None if deadline == float("inf") else deadline):
            while True:
                if self._closed:
                    error = Stopped(f"{waiting.subject.decode()} got no answer: the connection was closed")
                    error.definite = waiting.attempt == 1
                    raise error
                link = self._link
                if link is None:
                    await self._linked.wait()
                elif not link.is_writable:
                    await link.writable()
                elif link.is_open:
                    return link
                else:
                    await asyncio.sleep(0)  # its loss is about to be noticed

    def _respond(self, reply: bytes, data: bytes) -> None:
        self._check_size("the answer", data)
        link = self._link
        if link is not None:
            link.write(publish_frame(reply, b"", data))
        elif self._closed or not self._held.hold(reply, data):
            self.dropped += 1

    def _check_size(self, subject: str, data: bytes) -> None:
        if len(data) > self._max_payload:
            raise PayloadError(
                f"{subject}: {len(data):,} bytes are over the limit of {self._max_payload:,} for one message: keep "
                "large data elsewhere, or raise the server's max_payload",
                limit=self._max_payload,
                size=len(data),
            )

    # Receiving.

    async def subscribe(self, subject: str, callback: DeliveryCallback, *, queue: str = "") -> Subscription:
        """Listen to a subject; it is in effect when this returns, and again after every reconnect.

        While disconnected this returns at once, and it is in effect as soon as the connection is back; a refusal is
        logged then, and told by :attr:`denied`.

        :param callback: is called with each message as it arrives. It must not block: there is no queue before it.
        :param queue: of all subscriptions with the same queue, one gets a message.
        :raises AuthenticationError: this user may not listen there, as the server says now.
        :raises Stopped: the connection was closed.
        """
        _encoded(subject)
        if self._closed:
            raise Stopped(f"{subject} was not subscribed: the connection was closed")
        self._sid += 1
        subscription = Subscription(self, b"%d" % self._sid, subject, queue, callback)
        self._subscriptions[subscription.sid] = subscription
        link = self._link
        if link is None:
            return subscription
        link.write(subscription.line())
        try:
            await link.ping()
        except (OSError, AuthenticationError):
            return subscription  # made again as soon as the connection is back
        except asyncio.CancelledError:
            self._forget(subscription)
            raise
        if subscription.denied is not None:
            self._forget(subscription)
            raise AuthenticationError(
                f"{self._settings.user!r} may not serve {subject}: {subscription.denied}",
                user=self._settings.user,
                subject=subject,
            )
        return subscription

    async def _drop(self, subscription: Subscription, *, drain: bool) -> None:
        if subscription.sid not in self._subscriptions:
            return
        link = self._link
        if link is not None and drain:
            link.write(unsub_line(subscription.sid))
            # What was sent before the server saw this arrives before its answer.
            with contextlib.suppress(OSError, AuthenticationError):
                await link.ping()
        self._forget(subscription, tell=not drain)

    def _forget(self, subscription: Subscription, *, tell: bool = True) -> None:
        if self._subscriptions.pop(subscription.sid, None) is not None and tell and self._link is not None:
            self._link.write(unsub_line(subscription.sid))

    def _on_message(self, sid: bytes, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        if sid == _INBOX_SID:
            waiting = self._waiting.get(subject[len(self._inbox) :])
            if waiting is None:
                return  # whoever asked is gone
            if headers and headers.startswith(_NO_RESPONDERS):
                waiting.fail(NoResponders(waiting.subject.decode(), waiting.attempt))
            else:
                waiting.answer(payload)
            return
        subscription = self._subscriptions.get(sid)
        if subscription is None:
            return
        if reply and not reply.startswith(self._inboxes):
            # Whoever asks chooses where the answer goes: not to where only this user may send.
            self.forged += 1
            if _worth_a_line(self.forged):
                logger.error(
                    "%d messages so far want their answer elsewhere than at an inbox; the last one, on %s, at %s",
                    self.forged,
                    subject.decode("utf-8", "replace"),
                    reply[:200].decode("utf-8", "replace"),
                )
            return
        subscription.deliver(Delivery(self, self._link, subject, reply, payload))

    def _ask_again(self) -> None:
        """Subscribe again what was refused: what a token may serve can change while connected."""
        self._asking_again = None
        for subscription in self._subscriptions.values():
            if subscription.denied is not None and self._link is not None:
                subscription.denied = None
                self._link.write(subscription.line())

    @property
    def denied(self) -> list[str]:
        """The subjects that this user wants to listen to and may not, as far as is known."""
        return [one.subject for one in self._subscriptions.values() if one.denied is not None]

    def _on_server_error(self, text: str) -> None:
        """Tell whoever is concerned by an error that leaves the connection open."""
        denial = denial_of(text)
        if denial is None:
            logger.error("the server says: %s", text)
            return
        subject = denial.subject
        if denial.to_listen:
            concerned = [one for one in self._subscriptions.values() if one.subject == subject]
            for subscription in concerned:
                subscription.denied = text
            if concerned and self._asking_again is None:
                self._asking_again = asyncio.get_running_loop().call_later(
                    self._settings.ping_interval, self._ask_again
                )
            if subject.encode() == self._inbox + b"*":
                self._inbox_denied = text
            if subject not in self._told_denied:
                self._told_denied.add(subject)
                logger.error("the server refuses a subscription of %r: %s", self._settings.user, text)
            return
        denied = [
            waiting
            for key, waiting in self._waiting.items()
            if subject.encode() in (waiting.subject, self._inbox + key) and not waiting.future.done()
        ]
        for waiting in denied:
            waiting.future.set_exception(
                AuthenticationError(
                    f"{self._settings.user!r} may not send to {waiting.subject.decode()}: {text}",
                    user=self._settings.user,
                    subject=waiting.subject.decode(),
                )
            )
        if not denied:
            self.refused += 1
            if _worth_a_line(self.refused):  # replies to requests of a lost connection come in crowds
                logger.error(
                    "%d messages of %r were refused so far, the last one: %s", self.refused, self._settings.user, text
                )


@lru_cache(maxsize=4096)
def _encoded(subject: str) -> bytes:
    """Return a subject as bytes; one that holds spaces or line ends would be commands of its own to the server."""
    if not subject or not subject.isascii() or any(character <= " " for character in subject):
        raise ValueError(f"{subject!r} is no subject")
    return subject.encode()


def _worth_a_line(count: int) -> bool:
    """Whether the count-th of something is logged: the first, the second, the fourth and so on."""
    return count & (count - 1) == 0


def _parsed(peers: list[str]) -> Iterator[Address]:
    for peer in peers:
        with contextlib.suppress(ValueError):
            yield Address.parse(peer)
