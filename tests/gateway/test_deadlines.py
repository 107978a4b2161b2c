"""One timer for many deadlines: what expires, when, and what is left behind."""

from __future__ import annotations

import asyncio

import pytest

from evento.gateway.deadlines import Deadlines


class Noting:
    def __init__(self) -> None:
        self.expired = asyncio.get_running_loop().create_future()

    def expire(self) -> None:
        self.expired.set_result(asyncio.get_running_loop().time())


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_wait_ends_at_its_deadline_and_not_before() -> None:
    deadlines = Deadlines()
    deadline = now() + 0.03
    with pytest.raises(TimeoutError), deadlines.at(deadline) as timer:
        await asyncio.Event().wait()
    assert timer.expired
    assert now() >= deadline


async def test_what_is_done_in_time_is_left_alone() -> None:
    deadlines = Deadlines()
    with deadlines.at(now() + 0.01) as timer:
        pass
    with pytest.raises(TimeoutError), deadlines.at(now() + 0.02):  # a later one, so that the first has passed
        await asyncio.Event().wait()
    assert not timer.expired


async def test_each_expires_in_its_turn_whatever_the_order_of_watching() -> None:
    deadlines = Deadlines()
    begin = now()
    late, early, last = Noting(), Noting(), Noting()
    for one, delay in ((late, 0.06), (early, 0.02), (last, 0.09)):
        deadlines.watch(begin + delay, one)
    moments: list[float] = await asyncio.gather(*(one.expired for one in (early, late, last)))
    assert moments == sorted(moments)
    for moment, delay in zip(moments, (0.02, 0.06, 0.09), strict=True):
        assert moment >= begin + delay


async def test_a_deadline_that_has_passed_expires_at_once() -> None:
    one = Noting()
    Deadlines().watch(now() - 5, one)
    await one.expired


async def test_what_was_forgotten_does_not_expire() -> None:
    deadlines = Deadlines()
    one, other = Noting(), Noting()
    slot = deadlines.watch(now() + 0.01, one)
    deadlines.watch(now() + 0.03, other)
    deadlines.forget(slot, one)
    await other.expired
    assert not one.expired.done()


async def test_cancelling_from_outside_is_no_timeout() -> None:
    deadlines = Deadlines()

    async def wait() -> None:
        with deadlines.at(now() + 60):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelling_at_the_moment_of_the_deadline_is_no_timeout() -> None:
    deadlines = Deadlines()
    timers = []

    async def wait() -> None:
        with deadlines.at(now() + 60) as timer:
            timers.append(timer)
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    timers[0].expire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_inside_stays_what_it_is() -> None:
    with pytest.raises(KeyError), Deadlines().at(now() + 60):
        raise KeyError("mine")


async def test_closed_it_keeps_its_timer_as_long_as_something_is_watched() -> None:
    deadlines = Deadlines()
    one = Noting()
    deadlines.watch(now() + 0.02, one)
    deadlines.close()
    await one.expired


async def test_closed_it_leaves_no_timer_behind() -> None:
    deadlines = Deadlines()
    slot = deadlines.watch(now() + 60, one := Noting())
    deadlines.close()
    assert deadlines.is_waiting
    deadlines.forget(slot, one)
    assert not deadlines.is_waiting
