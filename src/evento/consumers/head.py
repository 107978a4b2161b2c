"""HeadWatch: follows the head of the System State Store for all consumers of a bundle."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from evento.consumers.failures import Backoff
from evento.state_store import StateStore

__all__ = ["HeadWatch"]

logger = logging.getLogger("evento.consumers")


class HeadWatch:
    """Knows the newest position and wakes those who wait for a newer one.

    One wait on the store serves every consumer, so that idling costs the same however many there are.

    :param poll: the longest time in seconds between two looks at the store, should its notices fail.
    """

    def __init__(self, store: StateStore, *, poll: float) -> None:
        self._store = store
        self._poll = poll
        self._listeners: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self.head = 0

    async def __aenter__(self) -> HeadWatch:
        """Read the head and start following it."""
        self.head = await self._store.head()
        self._task = asyncio.create_task(self._follow(), name="evento-head-watch")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def listen(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` whenever the head has moved."""
        self._listeners.append(listener)

    def seen(self, head: int) -> None:
        """Take note of a head that was learnt otherwise."""
        if head > self.head:
            self.head = head
            for listener in self._listeners:
                listener()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        backoff = Backoff()
        while True:
            asked, known = loop.time(), self.head
            try:
                head = await self._store.wait(known, self._poll)
            except Exception as error:
                delay = backoff.next()
                logger.warning("The head of the event store cannot be followed (again in %.1f s): %s", delay, error)
                await asyncio.sleep(delay)
                continue
            backoff.reset()
            self.seen(head)
            if head <= known:
                # A store that answers early without news must not make this a busy loop.
                await asyncio.sleep(max(0.0, self._poll - (loop.time() - asked)))
