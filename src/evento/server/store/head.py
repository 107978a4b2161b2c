"""Publishing the head: one notice for all that was committed in a turn of the event loop."""

from __future__ import annotations

import asyncio

from evento.gateway.nats import NatsConnection
from evento.gateway.nats.calls import encode
from evento.messages import EventRecord
from evento.state_store.remote import wire

__all__ = ["HeadPublisher"]

_MAX_NAMES = 64


class HeadPublisher:
    """Tells bundles that the head has moved, and by events of which names and contexts.

    A notice only wakes consumers sooner: one that is lost costs a poll. With more than a few dozen different names the
    notice names none, which means: look.
    """

    def __init__(self, connection: NatsConnection, store_id: str) -> None:
        self._connection = connection
        self._store_id = store_id
        self._head = 0
        self._names: set[str] = set()
        self._contexts: set[str] = set()
        self._scheduled = False

    def stored(self, record: EventRecord) -> None:
        """Note a committed event; the notice leaves at the end of this turn of the loop."""
        self._head = max(self._head, record.position)
        self._names.add(record.name)
        self._contexts.add(record.context)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._publish)

    def _publish(self) -> None:
        self._scheduled = False
        names, contexts = self._names, self._contexts
        self._names, self._contexts = set(), set()
        few = len(names) <= _MAX_NAMES and len(contexts) <= _MAX_NAMES
        notice = wire.HeadNotice(
            wire.FORMAT,
            self._store_id,
            self._head,
            tuple(names) if few else (),
            tuple(contexts) if few else (),
        )
        self._connection.publish(self._connection.subjects.head, encode(notice))
