"""Invocations: how a call of an invoker's method reaches the bundle that runs it."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from types import FunctionType
from typing import Any, Protocol

from evento.components.definition import ComponentDefinition, HandlerDefinition, HandlerKind
from evento.errors import EventoError
from evento.gateway.commands import CommandGateway
from evento.gateway.queries import QueryGateway

__all__ = ["InvocationRuntime", "invoked_function", "invoking", "runtime_of"]

RUNTIME = "_evento_runtime"
_FUNCTION = "__evento_invocation__"


class InvocationRuntime(Protocol):
    """Runs the invocations of an invoker; the bundle sets it on the instances that ``bundle.invoker()`` returns."""

    @property
    def commands(self) -> CommandGateway:
        """The gateway behind ``self.commands``."""
        ...

    @property
    def queries(self) -> QueryGateway:
        """The gateway behind ``self.queries``."""
        ...

    async def invoke(
        self, instance: object, handler: HandlerDefinition, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Run ``handler.function(instance, *args, **kwargs)`` as a message of its own, and return its result."""
        ...


def runtime_of(invoker: object) -> InvocationRuntime:
    """Return the runtime of an invoker; raise :class:`EventoError` when it has none."""
    runtime: InvocationRuntime | None = getattr(invoker, RUNTIME, None)
    if runtime is None:
        name = type(invoker).__name__
        raise EventoError(
            f"this {name} belongs to no bundle: get it by bundle.invoker({name}) instead of making it", invoker=name
        )
    return runtime


def invoking(function: FunctionType) -> FunctionType:
    """Wrap a method so that calling it runs it through the invoker's runtime."""
    call: Callable[..., Awaitable[Any]] = function

    @functools.wraps(function)
    async def invoke(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        runtime = runtime_of(self)
        component: ComponentDefinition = type(self).__evento_component__
        handler = component.handler_for(HandlerKind.INVOCATION, f"{component.name}::{function.__name__}")
        if handler is None or handler.function is not function:
            # Called through super(): part of the invocation that the overriding method already is.
            return await call(self, *args, **kwargs)
        return await runtime.invoke(self, handler, args, kwargs)

    setattr(invoke, _FUNCTION, function)
    return invoke  # type: ignore[return-value]


def invoked_function(method: FunctionType) -> FunctionType | None:
    """Return the method as it was written, when :func:`invoking` has wrapped it."""
    return getattr(method, _FUNCTION, None)
