"""Counting the runs of event handlers: how many, how long, and how many failed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, TypeAlias

from evento.components.definition import HandlerDefinition

__all__ = ["Count", "CountOf", "counted"]

Count: TypeAlias = Callable[[float, bool], None]
"""Is told of each run how many seconds it took, and whether it failed."""

CountOf: TypeAlias = Callable[[HandlerDefinition], Count]
"""Gives each handler its :data:`Count`."""


def counted(run: Callable[..., Awaitable[Any]], count: Count) -> Callable[..., Awaitable[Any]]:
    """Return ``run`` with its runs counted; one that is cancelled, as at a stop, is none."""

    async def counting(*arguments: Any) -> Any:
        began = perf_counter()
        try:
            result = await run(*arguments)
        except Exception:
            count(perf_counter() - began, True)
            raise
        count(perf_counter() - began, False)
        return result

    return counting
