"""Publishing the head: one notice for all that was committed in a turn of the event loop."""

from __future__ import annotations

import asyncio

from evento.gateway.nats import NatsConnection
from evento.gateway.nats.calls import encode
from evento.state_store.remote import wire

__all__ = ["HeadPublisher"]


class HeadPublisher:
    """Tells bundles that the head has moved.

    A notice only wakes consumers sooner: one that is lost costs a poll. It is the head alone, without what the events
    are: see docs/adr/0008-a-notice-is-the-head-alone.md.
    """

    def __init__(self, connection: NatsConnection, store_id: str) -> None:
        self._connection = connection
        self._store_id = store_id
        self._head = 0
        self._scheduled = False

    def stored(self, position: int) -> None:
        """Note the position of a committed event; the notice leaves at the end of this turn of the loop."""
        self._head = max(self._head, position)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._publish)

    def _publish(self) -> None:
        self._scheduled = False
        notice = wire.HeadNotice(wire.FORMAT, self._store_id, self._head)
        self._connection.publish(self._connection.subjects.head, encode(notice))
