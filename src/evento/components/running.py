"""Running a handler: the ContextVar, interceptors, tracing and threads around the user's method."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

from evento.components.definition import HandlerDefinition, HandlerKind
from evento.components.tracing import TracingAgent
from evento.errors import HandlerError
from evento.gateway.handling import Handling, handling_now

__all__ = ["HandlerCall", "HandlerRunner", "Interceptor"]


class HandlerCall:
    """One call of a handler, as interceptors see it."""

    __slots__ = ("handler", "handling", "injection", "payload")

    def __init__(self, handler: HandlerDefinition, payload: Any, injection: Any, handling: Handling) -> None:
        self.handler = handler
        self.payload = payload
        self.injection = injection
        self.handling = handling

    @property
    def kind(self) -> HandlerKind:
        """The kind of the handler."""
        return self.handler.kind

    @property
    def message(self) -> Any:
        """The handled message with its envelope."""
        return self.handling.message


class Interceptor:
    """Runs around handlers; subclass it and give it to ``EventoBundle(interceptors=[...])``.

    ``kinds`` limits it to some kinds of handler (None: all). The first interceptor of the list is the outermost.
    Handlers run concurrently, so an interceptor keeps no state of a single call in itself.
    """

    kinds: frozenset[HandlerKind] | None = None

    async def before(self, call: HandlerCall) -> None:
        """Run before the handler; raising refuses the call as if the handler had raised."""

    async def after(self, call: HandlerCall, result: Any) -> Any:
        """Run after the handler has returned; what it returns takes the place of the result."""
        return result

    async def on_exception(self, call: HandlerCall, error: Exception) -> Exception:
        """Run after the handler has raised; what it returns is raised instead."""
        return error


class HandlerRunner:
    """Runs one handler of one instance."""

    __slots__ = ("_call", "_executor", "_interceptors", "_plain", "_tracing", "handler")

    def __init__(
        self,
        handler: HandlerDefinition,
        instance: object,
        *,
        tracing: TracingAgent | None = None,
        interceptors: Sequence[Interceptor] = (),
        executor: Executor | None = None,
        call: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        self.handler = handler
        self._call: Callable[[Any, Any], Any] = call or handler.bind(instance)
        self._executor = executor
        self._interceptors = tuple(i for i in interceptors if i.kinds is None or handler.kind in i.kinds)
        self._tracing = tracing if tracing is not None and type(tracing).track is not TracingAgent.track else None
        self._plain = not self._interceptors and self._tracing is None and executor is None

    async def run(self, payload: Any, injection: Any, handling: Handling) -> Any:
        """Run the handler and return its result; its errors pass unchanged, unless an interceptor replaces them."""
        token = handling_now.set(handling)
        try:
            if self._plain:
                if self.handler.is_async:
                    return await self._call(payload, injection)
                return self._call(payload, injection)
            if self._tracing is None:
                return await self._intercepted(payload, injection, handling)
            proceed = functools.partial(self._intercepted, payload, injection, handling)
            return await self._tracing.track(handling.message, self.handler, proceed)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody has cancelled this run: something that the handler awaited was.
            failure = HandlerError(f"{self.handler.id} was ended by the cancellation of something it awaited")
            failure.type = type(error).__name__
            raise failure from error
        finally:
            handling_now.reset(token)

    async def _intercepted(self, payload: Any, injection: Any, handling: Handling) -> Any:
        if not self._interceptors:
            return await self._invoke(payload, injection)
        call = HandlerCall(self.handler, payload, injection, handling)
        return await self._through(self._interceptors, call)

    async def _through(self, chain: tuple[Interceptor, ...], call: HandlerCall) -> Any:
        if not chain:
            return await self._invoke(call.payload, call.injection)
        interceptor, *inner = chain
        try:
            await interceptor.before(call)
            result = await self._through(tuple(inner), call)
        except Exception as error:
            replacement = await interceptor.on_exception(call, error)
            if replacement is error:
                raise
            raise replacement from error
        return await interceptor.after(call, result)

    async def _invoke(self, payload: Any, injection: Any) -> Any:
        if self.handler.is_async:
            return await self._call(payload, injection)
        if self._executor is None:
            return self._call(payload, injection)
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, context.run, self._call, payload, injection)
