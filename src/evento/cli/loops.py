"""The event loop of commands that serve: uvloop where it is installed."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from typing import Any, TypeVar

__all__ = ["run_serving"]

R = TypeVar("R")


def run_serving(main: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine to its end on the fastest event loop there is, in a process that is there for nothing else."""
    thresholds = gc.get_threshold()
    # A few hundred requests in flight outlive young collections at Python's thresholds, and so cause full ones: with
    # 256 in flight those took a third of a handler process's time. Reference counts free nearly everything anyway.
    gc.set_threshold(10_000, 20, 50)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(main)
    finally:
        gc.set_threshold(*thresholds)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop
