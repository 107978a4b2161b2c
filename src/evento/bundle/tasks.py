"""Background tasks with an owner: none is forgotten, none outlives its owner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

__all__ = ["Tasks"]

logger = logging.getLogger("evento")

CANCEL_SECONDS = 3.0


class Tasks:
    """Owns background tasks: logs their failures, and waits for them at the end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run ``work`` in a task."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("the background task %s failed", task.get_name(), exc_info=task.exception())

    async def close(self, timeout: float) -> None:
        """Wait for the tasks, and cancel those that have not ended after ``timeout`` seconds.

        A task that ignores that is left behind.
        """
        if self._tasks:
            _, pending = await asyncio.wait(self._tasks, timeout=timeout)
            for task in pending:
                task.cancel()
            if pending:
                _, left = await asyncio.wait(pending, timeout=CANCEL_SECONDS)
                for task in left:
                    logger.error("the background task %s ignores that it is cancelled: left behind", task.get_name())
