"""The tests' own polling."""

from __future__ import annotations

import asyncio

import pytest
from waiting import eventually


async def test_it_returns_when_the_condition_is_true() -> None:
    asked = 0

    def third_time() -> bool:
        nonlocal asked
        asked += 1
        return asked == 3

    await eventually(third_time)
    assert asked == 3


async def test_what_never_comes_true_is_named() -> None:
    numbers: list[int] = []

    async def never_true() -> bool:
        return False

    with pytest.raises(AssertionError, match=r"not true within 0\.01 s: .*len\(numbers\) > 0"):
        await eventually(lambda: len(numbers) > 0, within=0.01)
    with pytest.raises(AssertionError, match="never_true"):
        await eventually(never_true, within=0.01)


async def test_a_condition_that_does_not_return_is_bounded_too() -> None:
    async def hangs() -> bool:
        await asyncio.Event().wait()
        return True

    with pytest.raises(AssertionError, match="hangs"):
        await eventually(hangs, within=0.01)


async def test_what_the_condition_raises_is_raised() -> None:
    async def times_out() -> bool:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await eventually(times_out)
