"""Commands of one boundary run one after another, in the order in which they came."""

from __future__ import annotations

import asyncio

import pytest

from evento.bundle.boundaries import Boundaries, Hold


async def _hold(boundaries: Boundaries, boundary: str) -> Hold:
    turn = boundaries.enter(boundary)
    if turn is not None:
        await boundaries.wait(boundary, turn)
    return Hold(boundaries, boundary)


async def test_waiters_enter_in_the_order_in_which_they_came() -> None:
    boundaries = Boundaries()
    first = await _hold(boundaries, "a")
    order: list[int] = []

    async def enter(number: int) -> None:
        hold = await _hold(boundaries, "a")
        order.append(number)
        hold.release()

    tasks = [asyncio.create_task(enter(number)) for number in range(5)]
    await asyncio.sleep(0)
    assert order == []
    first.release()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]
    assert len(boundaries) == 0


async def test_other_boundaries_do_not_wait() -> None:
    boundaries = Boundaries()
    await _hold(boundaries, "a")
    assert boundaries.enter("b") is None


async def test_a_cancelled_waiter_gives_its_turn_on() -> None:
    boundaries = Boundaries()
    first = await _hold(boundaries, "a")
    cancelled = asyncio.create_task(_hold(boundaries, "a"))
    last = asyncio.create_task(_hold(boundaries, "a"))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    first.release()
    (await last).release()
    assert len(boundaries) == 0


async def test_a_waiter_cancelled_just_after_its_turn_came_gives_it_on() -> None:
    boundaries = Boundaries()
    first = await _hold(boundaries, "a")
    cancelled = asyncio.create_task(_hold(boundaries, "a"))
    last = asyncio.create_task(_hold(boundaries, "a"))
    await asyncio.sleep(0)
    first.release()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    (await last).release()
    assert len(boundaries) == 0


async def test_a_boundary_is_left_only_when_the_append_in_flight_has_ended() -> None:
    boundaries = Boundaries()
    hold = await _hold(boundaries, "a")
    append: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    hold.until = append
    hold.release()
    waiting = asyncio.create_task(_hold(boundaries, "a"))
    await asyncio.sleep(0)
    assert not waiting.done()
    append.set_result(None)
    (await waiting).release()
    assert len(boundaries) == 0
