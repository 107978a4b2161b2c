"""Callers that are cancelled: nothing stays behind, and a resend tells what came of the command."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from depot import KeptOrderAggregate
from journal import Journal, orders, send
from killing import all_events, check_events, fold
from shop import Ledger, PaymentCaptureCommand, PaymentService
from waiting import turns
from work import (
    DelegateCommand,
    Script,
    WorkCommand,
    WorkDoneEvent,
    WorkInThreadCommand,
    WorkStartCommand,
    assert_nothing_stays_behind,
    inside,
    work_options,
)

from evento import EventoBundle, HandlerError, RequestTimeout, Stopped, TooManyPendingRequests
from evento.bundle.cache import CachedState
from evento.state_store.sqlite import SqliteStateStore

MakeBundle = Callable[..., EventoBundle]


@pytest.mark.parametrize("seed", range(6))
async def test_callers_cancelled_at_random_points(make_bundle: MakeBundle, tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    journal = Journal(tmp_path / "journal")
    ledger = Ledger()
    wanted = orders(random, prefix="msg", aggregates="ORD", width=6)
    async with make_bundle(
        components=[KeptOrderAggregate, PaymentService], ledger=ledger, max_concurrent_handlers=8
    ) as bundle:
        for _ in range(3):
            callers = [asyncio.create_task(send(bundle, journal, next(wanted))) for _ in range(60)]
            await asyncio.gather(*(_cancel_at_some_point(caller, random) for caller in callers))
            await assert_nothing_stays_behind(bundle)
            async with asyncio.timeout(20):
                assert all(await asyncio.gather(*(send(bundle, journal, order) for order in journal.read().open)))
            await assert_nothing_stays_behind(bundle)
            await _check_cache(bundle)
        history = journal.read()
        assert history.wrong == []
        assert history.open == []
        again = [history.sent[key] for key in history.done]
        assert all(await asyncio.gather(*(send(bundle, journal, order) for order in again)))
        for number in range(6):
            await bundle.commands.send(PaymentCaptureCommand(f"ORD-{number}", 1), timeout=5)
    journal.close()
    history = journal.read()
    assert history.wrong == []
    async with SqliteStateStore(tmp_path / "shop.db") as store:
        events = await all_events(store)
    check_events(events[:-6], history)
    assert {event.command_id for event in events[:-6]} == history.done.keys()
    assert ledger.overlaps == 0


async def _cancel_at_some_point(caller: asyncio.Task[Any], random: Random) -> None:
    for _ in range(random.choice((0, 1, 2, 5, 10, 50, 1000))):
        if caller.done():
            break
        await asyncio.sleep(0)
    else:
        caller.cancel()
    await asyncio.wait([caller])


async def _check_cache(bundle: EventoBundle) -> None:
    """Fail unless each cached state is one that the aggregate has had."""
    parts = inside(bundle)
    for (_, aggregate_id), entry in cast("dict[tuple[str, str], CachedState]", parts._cache._entries).items():
        story = await parts.store.story(aggregate_id)
        assert entry.state == fold(story.events[: entry.version])


async def test_a_caller_cancelled_in_the_handler_leaves_the_boundary_to_the_next(make_bundle: MakeBundle) -> None:
    script = Script()
    async with make_bundle(**work_options(script)) as bundle:
        await bundle.commands.send(WorkStartCommand("W"))
        script.work = script.wait
        caller = asyncio.create_task(bundle.commands.send(WorkCommand("W", 1), message_id="one"))
        behind = asyncio.create_task(bundle.commands.send_message(WorkCommand("W", 2)))
        await script.entered.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        script.release.set()
        assert (await behind).version == 2
        assert (await bundle.commands.send_message(WorkCommand("W", 1), message_id="one")).version == 3
        await assert_nothing_stays_behind(bundle)


async def test_the_append_of_a_cancelled_caller_goes_on_and_a_resend_finds_it(make_bundle: MakeBundle) -> None:
    async with make_bundle(**work_options(Script())) as bundle:
        await bundle.commands.send(WorkStartCommand("W"))
        caller = asyncio.create_task(bundle.commands.send(WorkCommand("W", 1), message_id="one"))
        while not inside(bundle).store._writes._jobs:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        following = await bundle.commands.send_message(WorkCommand("W", 2))
        again = await bundle.commands.send_message(WorkCommand("W", 1), message_id="one")
        assert (again.version, following.version) == (2, 3)
        await assert_nothing_stays_behind(bundle)


async def test_a_cancelled_command_cancels_the_command_that_its_handler_has_sent(make_bundle: MakeBundle) -> None:
    script = Script()
    async with make_bundle(**work_options(script)) as bundle:
        await bundle.commands.send(WorkStartCommand("W"))
        script.work = script.wait
        caller = asyncio.create_task(bundle.commands.send(DelegateCommand("W")))
        await script.entered.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await assert_nothing_stays_behind(bundle)


async def test_a_handler_that_swallows_its_cancellation_still_has_its_event_stored(make_bundle: MakeBundle) -> None:
    script = Script()

    async def swallow(number: int) -> None:
        script.entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    async with make_bundle(**work_options(script)) as bundle:
        await bundle.commands.send(WorkStartCommand("W"))
        script.work = swallow
        caller = asyncio.create_task(bundle.commands.send_message(WorkCommand("W", 1), message_id="one"))
        await script.entered.wait()
        caller.cancel()
        assert (await caller).version == 2
        late = await bundle.commands.send_message(WorkCommand("W", 2), message_id="two", timeout=1.0)
        assert late.version == 3
        script.work = script.nothing
        assert (await bundle.commands.send_message(WorkCommand("W", 2), message_id="two")).version == 3
        await assert_nothing_stays_behind(bundle)


async def test_a_handler_that_is_ended_by_something_cancelled_is_an_error_and_no_cancellation(
    make_bundle: MakeBundle,
) -> None:
    script = Script()

    async def give_up(number: int) -> None:
        raise asyncio.CancelledError

    async with make_bundle(**work_options(script)) as bundle:
        await bundle.commands.send(WorkStartCommand("W"))
        script.work = give_up
        with pytest.raises(HandlerError, match="cancellation"):
            await bundle.commands.send(WorkCommand("W", 1))
        script.work = script.nothing
        assert await bundle.commands.send(WorkCommand("W", 2)) == WorkDoneEvent("W", 2)


async def test_what_a_thread_returns_to_a_cancelled_caller_is_not_stored(make_bundle: MakeBundle) -> None:
    script = Script()
    async with make_bundle(**work_options(script)) as bundle:
        await bundle.commands.send(WorkStartCommand("W"))
        with pytest.raises(RequestTimeout):
            await bundle.commands.send(WorkInThreadCommand("W", 1), timeout=0.1)
        following = await bundle.commands.send_message(WorkCommand("W", 2))
        script.thread.set()
        assert following.version == 2
        assert (await bundle.commands.send_message(WorkInThreadCommand("W", 3))).version == 3
        await assert_nothing_stays_behind(bundle)


async def test_a_resend_that_was_not_handled_tells_nothing_about_the_first_attempt(make_bundle: MakeBundle) -> None:
    script = Script()
    async with make_bundle(**work_options(script), max_in_flight_requests=1) as bundle:
        await bundle.commands.send(WorkStartCommand("W"))
        await bundle.commands.send(WorkStartCommand("V"))
        script.work = script.wait
        first = asyncio.create_task(bundle.commands.send(WorkCommand("W", 1), message_id="one"))
        await script.entered.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        hanging = asyncio.create_task(bundle.commands.send(WorkCommand("V", 2)))
        await asyncio.sleep(0)
        with pytest.raises(TooManyPendingRequests) as resent:
            await bundle.commands.send(WorkCommand("W", 1), message_id="one")
        assert not resent.value.definite
        with pytest.raises(TooManyPendingRequests) as fresh:
            await bundle.commands.send(WorkCommand("W", 1), message_id="two")
        assert fresh.value.definite
        script.release.set()
        await hanging


async def test_stopping_under_load_answers_everyone(make_bundle: MakeBundle, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    options: dict[str, Any] = {"components": [KeptOrderAggregate, PaymentService]}
    stopped: list[Stopped] = []

    async def keep_sending(number: int) -> None:
        for order in orders(Random(number), prefix=f"msg-{number}", aggregates="ORD", width=5):
            try:
                await bundle.commands.send_message(order.command, message_id=order.id)
            except Stopped as error:
                stopped.append(error)
                return
            except Exception:
                continue

    async with make_bundle(**options) as bundle:
        callers = [asyncio.create_task(keep_sending(number)) for number in range(20)]
        head = 0
        async with asyncio.timeout(20):
            while head < 50:
                head = await inside(bundle).store.wait(head, 20)
    await asyncio.wait(callers, timeout=10)
    assert len(stopped) == 20
    assert all(error.definite for error in stopped)
    journal.close()


async def test_a_stop_that_is_cancelled_closes_everything_all_the_same(make_bundle: MakeBundle) -> None:
    script = Script()
    script.work = script.wait
    bundle = make_bundle(**work_options(script))
    await bundle.start()
    await bundle.commands.send(WorkStartCommand("W"))
    hanging = asyncio.create_task(bundle.commands.send(WorkCommand("W", 1)))
    await script.entered.wait()
    stopping = asyncio.create_task(bundle.stop())
    await turns()
    assert not stopping.done()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert not bundle.is_running
    hanging.cancel()
    await asyncio.wait([hanging])
    async with make_bundle(**work_options(Script())) as again:
        assert (await again.commands.send_message(WorkCommand("W", 1))).version == 2
