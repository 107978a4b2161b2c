"""How an invoker's method runs: as a message of its own, from which everything it sends takes its correlation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from evento.components import HandlerDefinition, HandlerRunner, Interceptor, TracingAgent
from evento.gateway import CommandGateway, Handling, QueryGateway, RequestSender, current_handling
from evento.messages import InvocationMessage, Metadata, new_id

__all__ = ["InvokerRuntime"]


class InvocationInjection:
    """The arguments of one invocation, as interceptors see them."""

    __slots__ = ("args", "commands", "instance", "kwargs", "message", "queries")

    def __init__(
        self,
        instance: object,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        message: InvocationMessage[Any],
        commands: CommandGateway,
        queries: QueryGateway,
    ) -> None:
        self.instance = instance
        self.args = args
        self.kwargs = kwargs
        self.message = message
        self.commands = commands
        self.queries = queries

    @property
    def metadata(self) -> Metadata:
        return self.message.metadata

    @property
    def timestamp(self) -> datetime:
        return self.message.timestamp


class InvokerRuntime:
    """Runs the invocations of all invokers of a bundle."""

    def __init__(
        self,
        *,
        commands: CommandGateway,
        queries: QueryGateway,
        sender: RequestSender,
        tracing: TracingAgent | None,
        interceptors: Sequence[Interceptor],
    ) -> None:
        self.commands = commands
        self.queries = queries
        self._sender = sender
        self._tracing = tracing
        self._interceptors = interceptors
        self._runners: dict[tuple[str, Any], HandlerRunner] = {}

    async def invoke(
        self, instance: object, handler: HandlerDefinition, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Run ``handler.function(instance, *args, **kwargs)`` as a message, and return its result."""
        key = handler.id, handler.function  # classes of one name may come from several modules
        runner = self._runners.get(key)
        if runner is None:
            runner = self._runners[key] = HandlerRunner(
                handler, instance, tracing=self._tracing, interceptors=self._interceptors, call=_call(handler)
            )
        outer = current_handling()
        message_id = new_id()
        message: InvocationMessage[Any] = InvocationMessage(
            _arguments(handler, args, kwargs),
            name=handler.payload_name,
            message_id=message_id,
            correlation_id=None if outer is None else outer.message.correlation_id,
            causation_id=None if outer is None else outer.message.message_id,
            metadata=self._sender.metadata(None, outer),
        )
        handling = Handling(
            message,
            handler=handler.id,
            metadata=message.metadata,
            may_send=True,
            may_query=True,
            boundaries=() if outer is None else outer.boundaries,
            depth=0 if outer is None else outer.depth,
            derive=False,
        )
        injection = InvocationInjection(
            instance, args, kwargs, message=message, commands=self.commands, queries=self.queries
        )
        return await runner.run(message.payload, injection, handling)


def _call(handler: HandlerDefinition) -> Any:
    function = handler.function
    if handler.is_async:
        return lambda _, injection: function(injection.instance, *injection.args, **injection.kwargs)

    def call(_: Any, injection: InvocationInjection) -> Any:
        return function(injection.instance, *injection.args, **injection.kwargs)

    return call


def _arguments(handler: HandlerDefinition, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments by name; wrong ones fail in the call itself, with Python's own message."""
    names = handler.function.__code__.co_varnames[1 : handler.function.__code__.co_argcount]
    return {**dict(zip(names, args, strict=False)), **kwargs}
