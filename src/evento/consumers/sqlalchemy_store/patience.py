"""Patience: how long a handler may keep a transaction open while it does something else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from evento.consumers.failures import TransactionTooLong

__all__ = ["Patience"]

TICKS = 10


class Patience:
    """Ends a handler that waits between two statements of its transaction, before the database ends its session.

    What the database itself takes is not counted: a lock that is waited for is no fault of the handler. Time is counted
    in ticks of the event loop, so that a process that was paused, or a loop that was blocked, makes nobody impatient.

    :param seconds: of waiting in one piece.
    """

    def __init__(self, connection: AsyncConnection, seconds: float) -> None:
        self.seconds = seconds
        self._busy = False
        self._idle = 0
        # Who swallows the error of a statement is watched again from the next one on, such as that of a savepoint.
        event.listen(connection.sync_connection, "before_cursor_execute", self._begins)
        event.listen(connection.sync_connection, "after_cursor_execute", self._ends)

    @asynccontextmanager
    async def watch(self, handler: str) -> AsyncIterator[None]:
        """Run a handler in the block.

        :raises TransactionTooLong: it was ended.
        """
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle
        self._busy, self._idle = False, 0

        def tick() -> None:
            nonlocal timer
            self._idle += not self._busy
            if self._idle >= TICKS:
                limit.reschedule(loop.time())
            else:
                timer = loop.call_later(self.seconds / TICKS, tick)

        timer = loop.call_later(self.seconds / TICKS, tick)
        try:
            async with asyncio.timeout(None) as limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise TransactionTooLong(
                f"{handler} held the checkpoint's transaction for more than {self.seconds:g} s without a statement: "
                "whoever needs its locks waits meanwhile. Let an observer do what is slow, or write through an engine "
                "of your own (at least once) instead of the injected connection",
                handler=handler,
                seconds=self.seconds,
            ) from None
        finally:
            timer.cancel()

    def _begins(self, *_: Any) -> None:
        self._busy = True

    def _ends(self, *_: Any) -> None:
        self._busy, self._idle = False, 0
