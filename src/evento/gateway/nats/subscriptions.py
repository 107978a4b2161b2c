"""What arrives: subjects that are listened to, and the messages that come."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from evento.gateway.nats.protocol import sub_line

if TYPE_CHECKING:
    from evento.gateway.nats.connection import NatsConnection
    from evento.gateway.nats.link import Link

__all__ = ["Delivery", "DeliveryCallback", "Subscription"]

logger = logging.getLogger("evento.gateway.nats")
DeliveryCallback: TypeAlias = Callable[["Delivery"], None]


class Delivery:
    """A message as it arrived."""

    __slots__ = ("_connection", "_link", "_subject", "data", "inbox")

    def __init__(
        self, connection: NatsConnection, link: Link | None, subject: bytes, reply: bytes, data: bytes
    ) -> None:
        self._connection = connection
        self._link = link
        self._subject = subject
        self.inbox = reply
        self.data = data

    @property
    def subject(self) -> str:
        """Where it was sent."""
        return self._subject.decode("utf-8", "replace")

    @property
    def reply(self) -> str:
        """Where the sender waits for an answer; empty when it waits for none."""
        return self.inbox.decode("utf-8", "replace")

    @property
    def is_answerable(self) -> bool:
        """Whether it came over the connection that is there now: with tokens, NATS lets no other one answer it."""
        return self._link is not None and self._connection._link is self._link

    def respond(self, data: bytes) -> None:
        """Answer; held back while disconnected.

        Does nothing when the sender waits for no answer.

        :raises PayloadError: the answer is larger than the server takes.
        """
        if self.inbox:
            self._connection._respond(self.inbox, data)


class Subscription:
    """A subject that is listened to; made by :meth:`NatsConnection.subscribe`."""

    def __init__(
        self, connection: NatsConnection, sid: bytes, subject: str, queue: str, callback: DeliveryCallback
    ) -> None:
        self._connection = connection
        self._callback = callback
        self.sid = sid
        self.subject = subject
        self.queue = queue
        self.denied: str | None = None

    def line(self) -> bytes:
        """Return the protocol's line."""
        return sub_line(self.subject.encode(), self.queue.encode(), self.sid)

    def deliver(self, delivery: Delivery) -> None:
        """Hand a message over."""
        try:
            self._callback(delivery)
        except Exception:
            logger.exception("the callback of %s failed", self.subject)

    async def drain(self) -> None:
        """Ask for no more; when this returns, all that was under way has been handed over."""
        await self._connection._drop(self, drain=True)

    async def unsubscribe(self) -> None:
        """Listen no more; what is under way is dropped."""
        await self._connection._drop(self, drain=False)
