"""DirectionsWatch: follows what operators ask of the consumers of a bundle."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from evento.consumers.failures import Backoff
from evento.consumers.port import ConsumerId, ConsumerStateStore, Directions
from evento.consumers.signals import wait_event

__all__ = ["DirectionsWatch"]

logger = logging.getLogger("evento.consumers")

STOP_TIMEOUT = 5.0


class DirectionsWatch:
    """Tells each consumer what is asked of it, whichever process wrote that down.

    One query serves every consumer, so that idling costs the same however many there are.

    :param poll: seconds between two looks; who asks in this process lets it :meth:`look` at once.
    """

    def __init__(self, store: ConsumerStateStore, bundle: str, *, poll: float) -> None:
        self._store = store
        self._bundle = bundle
        self._poll = poll
        self._listeners: dict[ConsumerId, Callable[[Directions], None]] = {}
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> DirectionsWatch:
        """Start following."""
        self._stop.clear()
        self._task = asyncio.create_task(self._follow(), name="evento-directions-watch")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop following; a look that is under way may end."""
        self._stop.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=STOP_TIMEOUT)
            self._task.cancel()
            await asyncio.wait({self._task})

    def listen(self, consumer: ConsumerId, listener: Callable[[Directions], None]) -> None:
        """Call ``listener`` with the directions for a consumer after each look."""
        self._listeners[consumer] = listener

    async def look(self) -> None:
        """Read the directions now, and pass them on.

        :raises StoreUnavailable: they cannot be read.
        """
        for consumer, directions in (await self._store.directions(self._bundle)).items():
            if consumer in self._listeners:
                self._listeners[consumer](directions)

    async def _follow(self) -> None:
        backoff = Backoff(self._poll)
        delay = self._poll
        while not await wait_event(self._stop, delay):
            try:
                await self.look()
            except Exception as error:
                delay = backoff.next()
                logger.warning("Pauses and retries cannot be looked for (again in %.1f s): %s", delay, error)
            else:
                backoff.reset()
                delay = self._poll
