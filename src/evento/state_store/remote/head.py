"""The head as a bundle knows it: told by the servers' notices, latched, and awaited."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from evento.gateway.nats import Delivery
from evento.state_store.remote import wire

__all__ = ["LatchedHead"]

logger = logging.getLogger("evento.state_store")

_decoder = msgspec.msgpack.Decoder(wire.HeadNotice)


class LatchedHead:
    """The newest head that was heard of; it never goes back. Notices of another store are ignored."""

    def __init__(self) -> None:
        self.position = 0
        self._store_id: str | None = None
        self._early: wire.HeadNotice | None = None
        self._waiters: set[asyncio.Future[None]] = set()

    def notice(self, delivery: Delivery) -> None:
        """Take a server's notice."""
        try:
            notice = _decoder.decode(delivery.data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            logger.warning("a notice of the head cannot be read: %s", error)
            return
        if self._store_id is None:
            self._early = notice
        elif notice.store_id == self._store_id:
            self.seen(notice.head)

    def of(self, store_id: str, position: int) -> None:
        """Follow a store whose head was learnt; a notice may have overtaken that."""
        early, self._early = self._early, None
        if self._store_id != store_id:
            self._store_id, self.position = store_id, 0
        self.seen(position)
        if early is not None and early.store_id == store_id:
            self.seen(early.head)

    def seen(self, position: int) -> None:
        """Note a head that was learnt."""
        if position > self.position:
            self.position = position
            self.wake()

    def wake(self) -> None:
        """Let all that wait look again."""
        for waiter in self._waiters:
            _settle(waiter)
        self._waiters.clear()

    async def woken(self, timeout: float) -> None:
        """Wait for a newer head, or somebody's :meth:`wake`, for at most ``timeout`` seconds."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiters.add(waiter)
        timer = loop.call_later(timeout, _settle, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
