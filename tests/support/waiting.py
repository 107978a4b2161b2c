"""The one place where tests poll: for what offers no event, future or signal to await."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

__all__ = ["Condition", "eventually", "turns"]

Condition = Callable[[], bool | Awaitable[bool]]

_PAUSE = 0.005


async def eventually(condition: Condition, *, within: float = 20.0) -> None:
    """Wait until ``condition`` (a plain or async function) is true; fail and name it after ``within`` seconds."""
    bound = asyncio.timeout(within)
    try:
        async with bound:
            while not await _holds(condition):
                await asyncio.sleep(_PAUSE)
    except TimeoutError:
        if not bound.expired():
            raise  # the condition's own
        raise AssertionError(f"not true within {within:g} s: {_name(condition)}") from None


async def turns(count: int = 100) -> None:
    """Give everything that is ready its turn: what needs nothing from outside the loop has happened then."""
    for _ in range(count):
        await asyncio.sleep(0)


async def _holds(condition: Condition) -> bool:
    outcome = condition()
    return await outcome if inspect.isawaitable(outcome) else bool(outcome)


def _name(condition: Condition) -> str:
    """The source of a lambda (the lines it is on), or the name of a function."""
    name = getattr(condition, "__qualname__", repr(condition))
    if not name.endswith("<lambda>"):
        return name
    try:
        return inspect.getsource(condition).strip()
    except OSError:
        return name
