"""More callers than there are places, and deadlines: definite refusals, no stall, nothing stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from work import (
    DelegateCommand,
    Script,
    WorkCommand,
    WorkDoneEvent,
    WorkLookQuery,
    WorkStartCommand,
    WorkView,
    assert_nothing_stays_behind,
    inside,
    work_options,
)

from evento import EventoBundle, Overloaded, RequestTimeout, TooManyPendingRequests

MakeBundle = Callable[..., EventoBundle]


async def test_200_handlers_that_each_send_a_command_and_a_query_do_not_wait_for_each_other(
    make_bundle: MakeBundle,
) -> None:
    script = Script()
    async with make_bundle(**work_options(script), max_concurrent_handlers=8) as bundle:
        await asyncio.gather(*(bundle.commands.send(WorkStartCommand(f"W_{number}")) for number in range(20)))

        async def both(number: int) -> None:
            await bundle.commands.send(DelegateCommand(f"W_{number % 20}", number))
            assert await bundle.queries.query(WorkLookQuery(f"W_{number}")) == WorkView(f"W_{number}")

        async with asyncio.timeout(20):
            await asyncio.gather(*(both(number) for number in range(200)))
        assert sorted(script.begun) == list(range(200))
        assert await inside(bundle).store.head() == 220
        await assert_nothing_stays_behind(bundle)


async def test_ten_times_more_callers_than_places_are_served_or_refused_definitely(make_bundle: MakeBundle) -> None:
    script = Script()
    async with make_bundle(**work_options(script), max_concurrent_handlers=4, max_in_flight_requests=30) as bundle:
        await asyncio.gather(*(bundle.commands.send(WorkStartCommand(f"W_{number}")) for number in range(5)))
        for _ in range(3):
            outcomes = await asyncio.gather(
                *(bundle.commands.send(WorkCommand(f"W_{number % 5}", number)) for number in range(300)),
                return_exceptions=True,
            )
            served = [outcome for outcome in outcomes if isinstance(outcome, WorkDoneEvent)]
            refused = [outcome for outcome in outcomes if isinstance(outcome, TooManyPendingRequests)]
            assert (len(served), len(refused)) == (30, 270)
            assert all(error.definite for error in refused)
            await assert_nothing_stays_behind(bundle)
        assert sorted(script.begun) == sorted([*range(30)] * 3)
        assert await inside(bundle).store.head() == 5 + 90


async def test_a_crowd_outside_does_not_keep_a_handler_from_what_it_sends(make_bundle: MakeBundle) -> None:
    script = Script()
    async with make_bundle(**work_options(script), max_concurrent_handlers=2, max_in_flight_requests=20) as bundle:
        await bundle.commands.send(WorkStartCommand("W"))
        await asyncio.gather(*(bundle.commands.send(DelegateCommand("W", number)) for number in range(20)))
        assert sorted(script.begun) == list(range(20))
        await assert_nothing_stays_behind(bundle)


async def test_callers_who_gave_up_waiting_take_no_place_from_others(make_bundle: MakeBundle) -> None:
    script = Script()
    script.work = script.wait
    async with make_bundle(**work_options(script), max_concurrent_handlers=1, max_in_flight_requests=4) as bundle:
        for name in "WV":
            await bundle.commands.send(WorkStartCommand(name))
        hanging = asyncio.create_task(bundle.commands.send(WorkCommand("W", 1)))
        await script.entered.wait()
        for _ in range(5):
            with pytest.raises(RequestTimeout):
                await bundle.commands.send(WorkCommand("V", 2), timeout=0.01)
        patient = asyncio.create_task(bundle.commands.send(WorkCommand("V", 3)))
        await asyncio.sleep(0)
        script.release.set()
        assert await patient == WorkDoneEvent("V", 3)
        assert await hanging == WorkDoneEvent("W", 1)
        assert script.begun == [1, 3]
        await assert_nothing_stays_behind(bundle)


async def test_expired_work_is_not_started_whatever_it_waited_for(make_bundle: MakeBundle) -> None:
    script = Script()
    script.work = script.wait
    async with make_bundle(**work_options(script), max_concurrent_handlers=2) as bundle:
        for name in "WV":
            await bundle.commands.send(WorkStartCommand(name))
        hanging = asyncio.create_task(bundle.commands.send(WorkCommand("W", 1)))
        await script.entered.wait()
        with pytest.raises(RequestTimeout):  # it waits for the boundary
            await bundle.commands.send(WorkCommand("W", 2), timeout=0.02)
        also = asyncio.create_task(bundle.commands.send(WorkCommand("V", 3)))
        await asyncio.sleep(0)
        with pytest.raises(RequestTimeout):  # it waits for a place
            await bundle.commands.send(WorkCommand("V", 4), timeout=0.02)
        script.release.set()
        await asyncio.gather(hanging, also)
        assert script.begun == [1, 3]
        assert await inside(bundle).store.head() == 4
        await assert_nothing_stays_behind(bundle)


async def test_a_handler_is_cancelled_at_the_deadline_while_others_go_on(make_bundle: MakeBundle) -> None:
    script = Script()
    cancelled: list[int] = []

    async def hang_even(number: int) -> None:
        if number % 2:
            return
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    async with make_bundle(**work_options(script)) as bundle:
        await asyncio.gather(*(bundle.commands.send(WorkStartCommand(f"W_{number}")) for number in range(10)))
        script.work = hang_even
        outcomes = await asyncio.gather(
            *(
                bundle.commands.send(WorkCommand(f"W_{number}", number), timeout=30.0 if number % 2 else 1.0)
                for number in range(10)
            ),
            return_exceptions=True,
        )
        assert [isinstance(outcome, RequestTimeout) for outcome in outcomes] == [True, False] * 5
        assert sorted(cancelled) == [0, 2, 4, 6, 8]
        assert await inside(bundle).store.head() == 15
        await assert_nothing_stays_behind(bundle)
        script.work = script.nothing
        for number in range(10):
            await bundle.commands.send(WorkCommand(f"W_{number}", number), timeout=5)


async def test_a_full_queue_of_the_store_is_a_definite_refusal(make_bundle: MakeBundle) -> None:
    script = Script()
    async with make_bundle(**work_options(script)) as bundle:
        await asyncio.gather(*(bundle.commands.send(WorkStartCommand(f"W_{number}")) for number in range(50)))
        inside(bundle).store._writes._max_jobs = 3  # type: ignore[attr-defined]
        outcomes = await asyncio.gather(
            *(bundle.commands.send(WorkCommand(f"W_{number}", number)) for number in range(50)), return_exceptions=True
        )
        served = [outcome for outcome in outcomes if isinstance(outcome, WorkDoneEvent)]
        refused = [outcome for outcome in outcomes if isinstance(outcome, Overloaded)]
        assert len(served) + len(refused) == 50
        assert served
        assert refused
        assert all(error.definite for error in refused)
        assert await inside(bundle).store.head() == 50 + len(served)
        await assert_nothing_stays_behind(bundle)
        again = await asyncio.gather(*(bundle.commands.send(WorkCommand(f"W_{number}", number)) for number in range(3)))
        assert len(again) == 3
