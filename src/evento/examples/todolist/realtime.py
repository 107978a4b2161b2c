"""Real-time updates: who looks at lists is told when one has changed, and asks again.

The projector saves and then notifies (*save-notify*), but not while it replays history. A notification carries the
position of the change: whoever asks again with it (``at_least``; the header ``X-Evento-Position`` on the web) sees the
change, even before the projector has committed it.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import NamedTuple

__all__ = ["Subscription", "TodoListUpdates", "Update"]

QUEUE_SIZE = 100


class Update(NamedTuple):
    """Which list has changed, and the position of the change."""

    identifier: str
    position: int


class Subscription:
    """The updates that one client has not got yet.

    A client that is too slow for them loses its subscription and not single updates: it knows that it must ask again.
    """

    def __init__(self, identifier: str | None, size: int) -> None:
        self._identifier = identifier
        self._updates: asyncio.Queue[Update | None] = asyncio.Queue(size + 1)
        self._size = size
        self.ended = False

    def offer(self, update: Update) -> None:
        """Take an update that is for this client; end when there are too many."""
        if self.ended or self._identifier not in {None, update.identifier}:
            return
        if self._updates.qsize() == self._size:
            self.end()
        else:
            self._updates.put_nowait(update)

    def end(self) -> None:
        """Take no more; what has come before can still be read."""
        if not self.ended:
            self.ended = True
            self._updates.put_nowait(None)

    async def updates(self, seconds: float) -> AsyncGenerator[Update, None]:
        """Wait for updates until the end, ``seconds`` at most."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    update = await self._updates.get()
            except TimeoutError:
                return
            if update is None:
                return
            yield update


class TodoListUpdates:
    """Hands the projector's updates to those who have subscribed at that time; keeps none for later."""

    def __init__(self, *, queue_size: int = QUEUE_SIZE) -> None:
        self._queue_size = queue_size
        self._subscriptions: set[Subscription] = set()
        self._closed = False

    @property
    def subscribers(self) -> int:
        """How many there are."""
        return len(self._subscriptions)

    @contextmanager
    def subscribe(self, identifier: str | None = None) -> Iterator[Subscription]:
        """Get the updates of one list, or of all, from here to the end of the block."""
        subscription = Subscription(identifier, self._queue_size)
        if self._closed:
            subscription.end()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def publish(self, update: Update) -> None:
        """Hand out an update; never waits."""
        for subscription in self._subscriptions:
            subscription.offer(update)

    def close(self) -> None:
        """End all subscriptions, also those to come."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.end()
