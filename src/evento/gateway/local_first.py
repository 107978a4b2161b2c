"""A bus of two: handlers of this process are called directly, all others are reached through the cluster's bus."""

from __future__ import annotations

import asyncio

from evento.gateway.bus import MessageBus, RequestHandler
from evento.gateway.inprocess import InProcessBus
from evento.messages import Reply, Request

__all__ = ["LocalFirstBus"]


class LocalFirstBus:
    """Serves a bundle's own requests in process, at once, and those of others only while it is enabled.

    A request that this process can handle never leaves it: what decided last about an aggregate has its state in the
    cache. A bundle whose read models are not there yet can use its own handlers already.
    """

    def __init__(self, cluster: MessageBus) -> None:
        self._cluster = cluster
        self._local = InProcessBus()
        self._handlers: dict[tuple[str, str], RequestHandler] = {}
        self._enabled = False

    async def request(self, request: Request, deadline: float) -> Reply:
        """Call the handler of the request's name here, or send the request to where it is."""
        if (request.kind, request.name) in self._handlers:
            return await self._local.request(request, deadline)
        return await self._cluster.request(request, deadline)

    async def serve(self, kind: str, name: str, handler: RequestHandler) -> None:
        """Start handling requests of a name: here at once, for others once the bundle is enabled."""
        await self._local.serve(kind, name, handler)
        self._handlers[kind, name] = handler
        if self._enabled:
            await self._cluster.serve(kind, name, handler)

    async def withdraw(self, kind: str, name: str) -> None:
        """Stop accepting requests of a name."""
        self._handlers.pop((kind, name), None)
        await self._local.withdraw(kind, name)
        if self._enabled:
            await self._cluster.withdraw(kind, name)

    async def enable(self) -> None:
        """Let others reach the handlers."""
        self._enabled = True
        for (kind, name), handler in list(self._handlers.items()):
            await self._cluster.serve(kind, name, handler)
            if not self._enabled:  # disabled meanwhile
                await self._cluster.withdraw(kind, name)
                return

    async def disable(self) -> None:
        """Take no further request of others; running handlers go on, and requests of this process too."""
        if self._enabled:
            self._enabled = False
            await asyncio.gather(*(self._cluster.withdraw(kind, name) for kind, name in list(self._handlers)))
