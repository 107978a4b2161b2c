"""How a test sends a command or query to the component under test: through a real gateway, straight to its runtime."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from evento.errors import error_to_data
from evento.gateway import CommandGateway, InProcessBus, QueryGateway, RequestHandler, RequestSender
from evento.messages import Command, EventMessage, Query, Reply, Request
from evento.testing.events import micros
from evento.testing.scenario import Subject

__all__ = ["Entrance"]


class Entrance(InProcessBus):
    """Hands every request to one runtime, and keeps the error that it raises as it is."""

    def __init__(self, subject: Subject, handle: RequestHandler) -> None:
        super().__init__()
        self._handle = handle
        self._timeout = subject.timeout
        self._timestamp: int | None = None
        self._error: Exception | None = None
        sender = RequestSender(self)
        self._commands = CommandGateway(sender, event_classes=subject.payloads.event_class)
        self._queries = QueryGateway(sender)

    async def send(
        self, command: Command[Any], metadata: Mapping[str, str] | None = None, timestamp: datetime | None = None
    ) -> tuple[EventMessage[Any] | None, Exception | None]:
        """Send a command; return its event and the error that was raised."""
        self._begin(timestamp)
        try:
            send: Any = self._commands.send_message
            return await send(command, metadata=metadata, timeout=self._timeout), None
        except Exception as error:
            return None, self._error or error

    async def query(
        self, query: Query[Any], metadata: Mapping[str, str] | None = None, timestamp: datetime | None = None
    ) -> tuple[Any, Exception | None]:
        """Send a query; return its answer and the error that was raised."""
        self._begin(timestamp)
        try:
            return await self._queries.query(query, metadata=metadata, timeout=self._timeout), None
        except Exception as error:
            return None, self._error or error

    async def request(self, request: Request, deadline: float) -> Reply:
        """Handle a request."""
        if self._timestamp is not None:
            request = replace(request, timestamp=self._timestamp)
        try:
            return await self._handle(request, deadline)
        except Exception as error:
            self._error = error
            return Reply(error=error_to_data(error))

    def _begin(self, timestamp: datetime | None) -> None:
        self._timestamp = None if timestamp is None else micros(timestamp)
        self._error = None
