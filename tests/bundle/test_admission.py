"""How many handlers run at a time, and who may not wait for a place."""

from __future__ import annotations

import asyncio

import pytest

from evento.bundle.admission import Admission
from evento.errors import Overloaded


async def test_beyond_the_limit_requests_wait_in_order() -> None:
    admission = Admission(limit=1, max_waiting=10)
    await admission.enter("A", depth=0)
    waiting = [asyncio.create_task(admission.enter("B", depth=0)) for _ in range(2)]
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [False, False]
    admission.leave()
    await waiting[0]
    assert not waiting[1].done()
    admission.leave()
    await waiting[1]
    admission.leave()
    assert admission.running == 0


async def test_too_many_waiting_requests_are_refused_definitely() -> None:
    admission = Admission(limit=1, max_waiting=1)
    await admission.enter("A", depth=0)
    waiting = asyncio.create_task(admission.enter("B", depth=0))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="max_concurrent_handlers") as caught:
        await admission.enter("C", depth=0)
    assert caught.value.definite
    admission.leave()
    await waiting


async def test_requests_of_handlers_never_wait() -> None:
    admission = Admission(limit=1, max_waiting=0)
    await admission.enter("A", depth=0)
    await admission.enter("B", depth=1)
    assert admission.running == 2
    admission.leave()
    admission.leave()
    assert admission.running == 0


async def test_places_taken_over_the_limit_are_not_given_on() -> None:
    admission = Admission(limit=1, max_waiting=1)
    await admission.enter("A", depth=0)
    await admission.enter("nested", depth=1)
    waiting = asyncio.create_task(admission.enter("B", depth=0))
    await asyncio.sleep(0)
    admission.leave()
    await asyncio.sleep(0)
    assert not waiting.done()
    admission.leave()
    await waiting
    assert admission.running == 1


@pytest.mark.parametrize("place_given", [False, True])
async def test_a_cancelled_waiter_takes_no_place(place_given: bool) -> None:
    admission = Admission(limit=1, max_waiting=2)
    await admission.enter("A", depth=0)
    cancelled = asyncio.create_task(admission.enter("B", depth=0))
    last = asyncio.create_task(admission.enter("C", depth=0))
    await asyncio.sleep(0)
    if place_given:
        admission.leave()
        cancelled.cancel()
    else:
        cancelled.cancel()
        await asyncio.sleep(0)
        admission.leave()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await last
    admission.leave()
    assert admission.running == 0


async def test_drained_waits_for_the_last_handler_and_says_when_it_did_not_end() -> None:
    admission = Admission(limit=2, max_waiting=0)
    assert await admission.drained(timeout=0.01)
    await admission.enter("A", depth=0)
    assert not await admission.drained(timeout=0.01)
    drained = asyncio.create_task(admission.drained(timeout=10))
    await asyncio.sleep(0)
    admission.leave()
    assert await drained


async def test_who_would_get_a_place_too_late_is_refused_at_once() -> None:
    admission = Admission(limit=2, max_waiting=100)
    now = asyncio.get_running_loop().time()
    for _ in range(2):
        await admission.enter("A", depth=0)
    admission.leave(took=10.0)
    await admission.enter("A", depth=0)
    waiting = [asyncio.create_task(admission.enter("B", depth=0, deadline=now + 60)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="too late for its deadline") as caught:
        await admission.enter("C", depth=0, deadline=now + 25)  # 15 s until its turn, and 10 s of its own
    assert caught.value.definite
    patient = asyncio.create_task(admission.enter("C", depth=0, deadline=now + 60))
    await asyncio.sleep(0)
    for one in (*waiting, patient):
        admission.leave()
        await one


async def test_a_short_queue_refuses_nobody() -> None:
    admission = Admission(limit=1, max_waiting=100)
    await admission.enter("A", depth=0)
    admission.leave(took=10.0)
    await admission.enter("A", depth=0)
    waiting = asyncio.create_task(admission.enter("B", depth=0, deadline=asyncio.get_running_loop().time() + 1))
    await asyncio.sleep(0)
    admission.leave(took=0.01)
    await waiting
