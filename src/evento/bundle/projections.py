"""How a query is answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from datetime import datetime
from typing import Any

from evento.bundle.serving import answer_by
from evento.components import ComponentDefinition, HandlerKind, HandlerRunner, Interceptor, TracingAgent
from evento.gateway import Handling, QueryGateway
from evento.messages import MAX_PAYLOAD_BYTES, Metadata, QueryMessage, Reply, Request, decode, seal_result

__all__ = ["ProjectionRuntime"]

WaitFor = Callable[[ComponentDefinition, int, float], Awaitable[None]]


class QueryInjection:
    """What query handlers may ask for."""

    __slots__ = ("message", "queries")

    def __init__(self, queries: QueryGateway, message: QueryMessage[Any]) -> None:
        self.queries = queries
        self.message = message

    @property
    def metadata(self) -> Metadata:
        return self.message.metadata

    @property
    def timestamp(self) -> datetime:
        return self.message.timestamp


class ProjectionRuntime:
    """Answers the queries of one projection component.

    :param wait_for: waits until the projection's projectors have committed a position, up to a deadline.
    """

    def __init__(
        self,
        definition: ComponentDefinition,
        instance: object,
        *,
        queries: QueryGateway,
        wait_for: WaitFor,
        tracing: TracingAgent | None,
        interceptors: Sequence[Interceptor],
        executors: dict[str, Executor],
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
    ) -> None:
        self._max_payload_bytes = max_payload_bytes
        self._definition = definition
        self._queries = queries
        self._wait_for = wait_for
        self._runners: dict[str, HandlerRunner] = {
            handler.payload_name: HandlerRunner(
                handler,
                instance,
                tracing=tracing,
                interceptors=interceptors,
                executor=executors[handler.executor] if handler.executor else None,
            )
            for handler in definition.handlers_of(HandlerKind.QUERY)
        }

    async def ready(self, request: Request, deadline: float) -> None:
        """Return when the read model has come to what the query asks for."""
        if request.at_least:
            await self._wait_for(self._definition, request.at_least, answer_by(deadline))

    async def handle(self, request: Request, deadline: float) -> Reply:
        """Answer one query, whose read model is :meth:`ready`."""
        runner = self._runners[request.name]
        cls: Any = runner.handler.payload
        query = request.decoded if type(request.decoded) is cls else decode(cls, request.payload)
        message = QueryMessage(query, request)
        handling = Handling(
            message,
            handler=runner.handler.id,
            metadata=request.metadata,
            may_send=False,
            may_query=True,
            boundaries=request.boundaries,
            depth=request.depth + 1,
        )
        result = await runner.run(query, QueryInjection(self._queries, message), handling)
        return Reply(view=seal_result(cls, result, self._max_payload_bytes))
