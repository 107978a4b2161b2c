"""Server-sent events: how updates reach a browser."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from evento.examples.todolist.realtime import Subscription, TodoListUpdates

__all__ = ["EventStream"]

STREAM_SECONDS = 60.0
"""How long a stream lives: no open browser tab keeps the server from stopping for longer."""


class EventStream(StreamingResponse):
    """Server-sent events: for each update a ``message`` with the list's identifier as data and the position as id.

    The subscription begins before the answer does, so whoever asks after the answer has begun misses nothing, and ends
    with the connection. After a minute at most the stream ends: an ``EventSource`` connects again by itself, and its
    ``open`` event is the moment to ask again.
    """

    def __init__(self, updates: TodoListUpdates, identifier: str | None = None) -> None:
        super().__init__(iter(()), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._updates = updates
        self._identifier = identifier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what comes until the client, the time or the application ends it."""
        with self._updates.subscribe(self._identifier) as subscription:
            async with aclosing(_messages(subscription)) as messages:
                self.body_iterator = messages
                await super().__call__(scope, receive, send)


async def _messages(subscription: Subscription) -> AsyncGenerator[str, None]:
    yield ": the updates of todo lists\n\n"  # so that the client knows at once that it is connected
    async with aclosing(subscription.updates(STREAM_SECONDS)) as updates:
        async for update in updates:
            yield f"id: {update.position}\nevent: message\ndata: {update.identifier}\n\n"
