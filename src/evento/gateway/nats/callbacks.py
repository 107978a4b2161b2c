"""Callbacks that hear of a connection that was lost, or is back."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

__all__ = ["StateCallback", "added", "called"]

logger = logging.getLogger("evento.gateway.nats")
StateCallback: TypeAlias = Callable[[], Awaitable[None] | None]


def added(callbacks: list[StateCallback], callback: StateCallback) -> Callable[[], None]:
    """Add a callback; return what takes it away again."""
    callbacks.append(callback)

    def remove() -> None:
        with contextlib.suppress(ValueError):
            callbacks.remove(callback)

    return remove


async def called(callback: StateCallback) -> None:
    """Call it, and wait for it when it is asynchronous; what it raises is logged."""
    try:
        result = callback()
        if result is not None:
            await result
    except Exception:
        logger.exception("a callback of the connection failed")
