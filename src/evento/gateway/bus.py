"""The MessageBus port: how a request reaches the one handler of its name, wherever it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from evento.errors import RequestTimeout
from evento.messages import Reply, Request

__all__ = ["MessageBus", "RequestHandler", "expired"]

RequestHandler: TypeAlias = Callable[[Request, float], Awaitable[Reply]]
"""Handles a request before a deadline (in the event loop's time); its errors are in the reply, never raised."""


class MessageBus(Protocol):
    """Carries requests to handlers and replies back.

    Routing is by kind ("command" or "query") and payload name alone. Errors of the receiving side come back inside the
    :class:`~evento.messages.Reply`; the bus itself raises :class:`~evento.errors.HandlerNotFound` (definite) when
    nobody serves the name. What has expired on its way is not started: its reply is :func:`expired`. Cancelling a
    request drops its answer; in one process it also cancels the running handler, up to the handler's return. The bus
    does not enforce the deadline for the caller: the gateway does.
    """

    async def request(self, request: Request, deadline: float) -> Reply:
        """Send a request and return the reply; ``deadline`` is in the event loop's time."""
        ...

    async def serve(self, kind: str, name: str, handler: RequestHandler) -> None:
        """Start handling requests of a name; an error when this bus already serves it."""
        ...

    async def withdraw(self, kind: str, name: str) -> None:
        """Stop accepting requests of a name; running handlers go on."""
        ...


def expired(request: Request) -> RequestTimeout:
    """Return the error of a request that was not started, because its deadline was over."""
    error = RequestTimeout(
        f"{request.name} ({request.message_id}) was not started: it arrived after its deadline",
        name=request.name,
        message_id=request.message_id,
    )
    error.definite = request.attempt == 1
    return error
