"""Connections to the HTTP interface: one request each, which must come soon and be answered soon."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["connection_class"]

_ANSWER_SECONDS = 30.0
"""How long a request may take from its head on, with a client that reads slowly."""


class _Connection(H11Protocol):
    """Ends when no whole head of a request comes in time, and after its answer: whoever is silent holds nothing up."""

    head_seconds: ClassVar[float]
    most: ClassVar[int]
    open: ClassVar[dict[_Connection, None]]  # the oldest first

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._timer = self.loop.call_later(self.head_seconds, self._head_is_due)
        self.open[self] = None
        if len(self.open) > self.most:  # others answer in milliseconds: the oldest is silent, or reads nothing
            next(iter(self.open)).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self.open.pop(self, None)
        super().connection_lost(exc)

    def _head_is_due(self) -> None:
        if self.cycle:
            self._timer = self.loop.call_later(_ANSWER_SECONDS, self.transport.abort)
        else:
            self.transport.abort()


def connection_class(*, head_seconds: float, most: int) -> type[asyncio.Protocol]:
    """Return the class of one server's connections.

    :param head_seconds: how long a connection may take to send the head of its request.
    :param most: connections at a time; one more takes the place of the oldest.
    """

    class Connection(_Connection):
        pass

    Connection.head_seconds, Connection.most, Connection.open = head_seconds, most, {}
    return Connection
