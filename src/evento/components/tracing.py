"""Tracing: what flows from message to message, and what wraps the handling of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from evento.components.definition import HandlerDefinition
from evento.messages import Message, Metadata

__all__ = ["TracingAgent", "track"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class TracingAgent:
    """The tracing hooks of a bundle; subclass it and give it to ``EventoBundle(tracing=...)``.

    The default lets all metadata flow and tracks nothing.
    """

    def correlate(self, metadata: Metadata, handled: Message | None) -> Metadata:
        """Return the metadata of a message that is about to be sent or published.

        ``metadata`` already holds what flowed from ``handled`` (None outside handlers) and what the sender gave.
        Called for every message: keep it short, and do not block.
        """
        return metadata

    async def track(self, message: Message, handler: HandlerDefinition, proceed: Callable[[], Awaitable[T]]) -> T:
        """Wrap the handling of a message; must await ``proceed()`` once and return its result or raise its error.

        ``handler.tracked`` tells whether the handler is marked with :func:`track`: a place where a new trace may start.
        """
        return await proceed()


def track(function: F) -> F:
    """Mark a handler as a place where a new trace may start."""
    function.__evento_track__ = True  # type: ignore[attr-defined]
    return function
