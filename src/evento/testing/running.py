"""Running a coroutine to its end from plain code, also where an event loop runs already."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from contextvars import copy_context
from threading import Event, Thread
from typing import Any, Generic, TypeVar, cast

__all__ = ["run_to_end"]

T = TypeVar("T")
CANCEL_SECONDS = 5.0


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` in an event loop of its own, in a thread of its own, and return its result or raise its error.

    A thread, because a thread that runs an event loop (the one of an ``async def`` test) can run no second one. When
    the waiting is interrupted (Ctrl-C, a timeout of the test runner), ``work`` is cancelled.
    """
    __tracebackhide__ = True
    run = _Run(work)
    # A daemon: a handler that blocks for ever must not keep the interpreter from ending.
    thread = Thread(target=copy_context().run, args=(run,), name="evento-testing", daemon=True)
    try:
        thread.start()
        run.ended.wait()
    except BaseException:
        run.cancel()
        run.ended.wait(CANCEL_SECONDS)
        raise
    thread.join()
    if run.error is not None:
        raise run.error
    return cast(T, run.result)


class _Run(Generic[T]):
    """One run; its error keeps a short traceback, for people read it whenever a test fails."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.result: T | None = None
        self.error: BaseException | None = None
        self.ended = Event()  # Thread.join() takes a thread for ended when it is interrupted (CPython 3.11)
        self._work = work
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False

    def __call__(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self.error = error
        finally:
            self.ended.set()

    async def _main(self) -> None:
        __tracebackhide__ = True
        self._task = asyncio.current_task()
        if self._cancelled and self._task is not None:
            self._task.cancel()
        try:
            self.result = await self._work
        except BaseException as error:
            self.error = error

    def cancel(self) -> None:
        self._cancelled = True
        if self._task is not None:
            with suppress(RuntimeError):  # the loop is closed: it has ended meanwhile
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)
