"""Running a coroutine to its end from plain code."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextvars import ContextVar

import pytest

from evento.testing.running import run_to_end

variable: ContextVar[str] = ContextVar("variable", default="")


async def answer(value: str) -> str:
    await asyncio.sleep(0)
    return value + variable.get()


async def fail() -> None:
    raise LookupError("not here")


def test_the_result_is_returned() -> None:
    assert run_to_end(answer("x")) == "x"


async def test_inside_a_running_loop() -> None:
    loop = asyncio.get_running_loop()

    async def other_loop() -> bool:
        return asyncio.get_running_loop() is not loop

    assert run_to_end(other_loop())
    assert run_to_end(answer("x")) == "x"


def test_the_error_is_raised_with_the_place_where_it_happened() -> None:
    with pytest.raises(LookupError, match="not here") as caught:
        run_to_end(fail())
    assert caught.traceback[-1].name == "fail"


def test_context_variables_are_those_of_the_caller() -> None:
    token = variable.set("y")
    try:
        assert run_to_end(answer("x")) == "xy"
    finally:
        variable.reset(token)


def test_tasks_that_are_left_behind_are_cancelled() -> None:
    ended = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def leave_one() -> None:
        tasks.append(asyncio.create_task(forever()))
        await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []
    run_to_end(leave_one())
    assert ended == [True]


def test_an_interrupted_wait_cancels_the_work() -> None:
    """Ctrl-C, or a test runner's timeout by signal."""
    cancelled = []

    async def interrupt() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with pytest.raises(KeyboardInterrupt):
        run_to_end(interrupt())
    assert cancelled == [True]
