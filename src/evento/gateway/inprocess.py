"""The MessageBus of one process: requests are handled by direct calls."""

from __future__ import annotations

import asyncio

from evento.errors import DefinitionError, HandlerNotFound, error_to_data
from evento.gateway.bus import RequestHandler, expired
from evento.messages import Reply, Request

__all__ = ["InProcessBus"]


class InProcessBus:
    """Hands requests to handlers of the same process, in the task of the caller.

    There is no queue and no grace period: a name that is not served is :class:`HandlerNotFound` at once, and cancelling
    the caller cancels the handler.
    """

    def __init__(self) -> None:
        self._handlers: dict[tuple[str, str], RequestHandler] = {}

    async def request(self, request: Request, deadline: float) -> Reply:
        """Call the handler of the request's name."""
        handler = self._handlers.get((request.kind, request.name))
        if handler is None:
            raise HandlerNotFound(
                f"no component of this bundle handles the {request.kind} {request.name!r}: add the component that does "
                "to the bundle's packages or components",
                kind=request.kind,
                name=request.name,
            )
        if deadline <= asyncio.get_running_loop().time():
            return Reply(error=error_to_data(expired(request)))
        return await handler(request, deadline)

    async def serve(self, kind: str, name: str, handler: RequestHandler) -> None:
        """Start handling requests of a name."""
        if (kind, name) in self._handlers:
            raise DefinitionError(f"the {kind} {name!r} is handled twice: a {kind} has one handler in the whole system")
        self._handlers[(kind, name)] = handler

    async def withdraw(self, kind: str, name: str) -> None:
        """Stop accepting requests of a name."""
        self._handlers.pop((kind, name), None)
