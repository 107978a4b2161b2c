"""Runs of handlers are counted with their time and outcome, and change nothing for who runs them."""

from __future__ import annotations

import asyncio

import pytest

from evento.components.counting import counted


class Counts:
    def __init__(self) -> None:
        self.failed: list[bool] = []

    def __call__(self, seconds: float, failed: bool) -> None:
        assert seconds >= 0
        self.failed.append(failed)


async def test_a_run_gives_its_result_and_is_counted() -> None:
    async def double(number: int) -> int:
        return 2 * number

    counts = Counts()
    assert await counted(double, counts)(21) == 42
    assert counts.failed == [False]


async def test_a_failure_passes_and_is_counted() -> None:
    async def fail() -> None:
        raise ValueError("no")

    counts = Counts()
    with pytest.raises(ValueError, match="no"):
        await counted(fail, counts)()
    assert counts.failed == [True]


async def test_a_cancelled_run_is_none() -> None:
    counts = Counts()
    task = asyncio.ensure_future(counted(asyncio.Event().wait, counts)())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert counts.failed == []
