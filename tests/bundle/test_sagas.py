"""Sagas in a real bundle: processes that run to their end, whatever fails, stops or is killed on the way."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import checkout as checkout_program
import pytest
from checkout import COMPLETE, CheckoutSaga, CheckoutState, Steps, checkout, stories
from shop import (
    ItemAddCommand,
    ItemAddedEvent,
    OrderAggregate,
    OrderPlaceCommand,
    OrderPlacedEvent,
    PaymentCaptureCommand,
    PaymentCapturedEvent,
    PaymentService,
)
from waiting import eventually

from evento import (
    CommandGateway,
    EventoBundle,
    Projector,
    Saga,
    Service,
    TransientError,
    command_handler,
    event_handler,
    saga_event_handler,
)
from evento.components import component_definition
from evento.consumers import ConsumerId, ConsumerState, ConsumerStatus, SqlConsumerStateStore, tenure
from evento.consumers.failures import Backoff

CHECKOUT = ConsumerId("checkout", "CheckoutSaga", 1, "*")


def status_of(bundle: EventoBundle, component: str = "CheckoutSaga") -> ConsumerStatus:
    """Return where a consumer stands."""
    (status,) = [one for one in bundle._up().consumers.statuses() if one.id.component == component]
    return status


async def until(bundle: EventoBundle, **wanted: Any) -> None:
    """Wait until the status of the saga has these values."""
    await eventually(lambda: all(getattr(status_of(bundle), name) == value for name, value in wanted.items()))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the waits between attempts short; how many there are stays as it is."""
    monkeypatch.setattr(tenure, "Backoff", lambda first=0.1, **options: Backoff(0.01, **options))


# The whole way


async def test_a_process_runs_to_its_end_and_is_waited_for(tmp_path: Path) -> None:
    steps = Steps()
    async with checkout(tmp_path, steps) as bundle:
        for number in range(5):
            await bundle.commands.send(OrderPlaceCommand(f"ORD_{number}", "ann"))
        await bundle.consumers_caught_up(20)  # with all that the saga's commands bring about
    assert await stories(tmp_path) == {f"ORD_{number}": COMPLETE for number in range(5)}
    assert len(steps.seen) == len(set(steps.seen)) + 5 * 2  # each once; two items in each order
    async with SqlConsumerStateStore(f"sqlite+aiosqlite:///{tmp_path / 'shop.db-consumers'}") as state:
        assert await state.sagas(CHECKOUT) == []


async def test_a_new_saga_does_not_see_what_was_before_it(tmp_path: Path) -> None:
    async with checkout(tmp_path, Steps(), components=(OrderAggregate, PaymentService)) as bundle:
        await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
    steps = Steps()
    async with checkout(tmp_path, steps) as bundle:
        await bundle.consumers_caught_up()
        assert steps.seen == []
        await bundle.commands.send(OrderPlaceCommand("ORD_2", "ann"))
        await bundle.consumers_caught_up()
    assert await stories(tmp_path) == {"ORD_1": ["OrderPlacedEvent"], "ORD_2": COMPLETE}


async def test_a_new_version_begins_at_the_head_without_the_old_states(tmp_path: Path) -> None:
    class Waiting(Saga[CheckoutState], version=1):
        @saga_event_handler(init=True, association_property="order_id")
        def on_placed(self, event: OrderPlacedEvent) -> CheckoutState:
            state = CheckoutState()
            state.set_association("order_id", event.order_id)
            return state

    seen: list[str] = []

    class Counting(Saga[CheckoutState], version=2):
        @saga_event_handler(association_property="order_id")
        def on_added(self, event: ItemAddedEvent, state: CheckoutState) -> None:
            seen.append(event.order_id)

    Counting.__evento_component__ = _renamed(Counting, "Waiting")
    async with checkout(tmp_path, Steps(), components=(OrderAggregate, Waiting)) as bundle:
        await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
        await bundle.consumers_caught_up()
    async with checkout(tmp_path, Steps(), components=(OrderAggregate, Counting)) as bundle:
        await bundle.commands.send(ItemAddCommand("ORD_1", "tea"))
        await bundle.consumers_caught_up()
        assert status_of(bundle, "Waiting").id.version == 2
    assert seen == []


def _renamed(cls: type, name: str) -> Any:
    return replace(component_definition(cls), name=name)


async def test_sagas_begin_when_the_read_models_are_there(tmp_path: Path) -> None:
    """Their place is stored before anything is served, so nothing that comes meanwhile is missed."""
    release, rows = asyncio.Event(), list[str]()

    class SlowProjector(Projector, version=1, wait_for_head_reached=True):
        @event_handler
        async def on_placed(self, event: OrderPlacedEvent) -> None:
            await release.wait()
            rows.append(event.order_id)

    async def check(step: str) -> None:
        assert "ORD_1" in rows

    async with checkout(tmp_path, Steps(), components=(OrderAggregate, PaymentService)) as bundle:
        await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
    steps = Steps(check)
    bundle = checkout(tmp_path, steps, components=(OrderAggregate, PaymentService, SlowProjector, CheckoutSaga))
    starting = asyncio.create_task(bundle.start())
    await eventually(lambda: bundle.is_running)
    async with asyncio.timeout(20):
        await bundle.commands.send(OrderPlaceCommand("ORD_2", "ann"))
        assert status_of(bundle).state is ConsumerState.STARTING
        assert steps.seen == []
        release.set()
        await starting
        await bundle.consumers_caught_up(10)
        await bundle.stop()
    assert (await stories(tmp_path))["ORD_2"] == COMPLETE


# Crashes

STEPS_OF_AN_ORDER = 9


@pytest.mark.parametrize("kill_at", range(1, STEPS_OF_AN_ORDER + 1))
async def test_killed_at_any_step_no_command_takes_effect_twice_and_none_is_missing(
    tmp_path: Path, kill_at: int
) -> None:
    assert await _run(tmp_path, orders=1, kill_at=kill_at) == -signal.SIGKILL
    assert await _run(tmp_path, orders=1, kill_at=0) == 0
    assert await stories(tmp_path) == {"ORD_0": COMPLETE}


@pytest.mark.timeout(300)  # up to 13 processes, one after another
async def test_killed_again_and_again_the_histories_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    random = Random(7)
    for _ in range(12):
        if await _run(tmp_path, orders=8, kill_at=random.randint(2, 20)) == 0:
            break
    assert await _run(tmp_path, orders=8, kill_at=0) == 0
    assert {order: sorted(names) for order, names in (await stories(tmp_path)).items()} == {
        f"ORD_{number}": sorted(COMPLETE) for number in range(8)
    }
    async with SqlConsumerStateStore(f"sqlite+aiosqlite:///{tmp_path / 'shop.db-consumers'}") as state:
        assert await state.sagas(CHECKOUT) == []
        stored = await state.load(CHECKOUT)
        assert stored is not None
        assert stored.dead == 0


async def _run(directory: Path, *, orders: int, kill_at: int) -> int:
    program = [sys.executable, str(checkout_program.__file__), str(directory), str(orders), str(kill_at)]
    done = await asyncio.to_thread(subprocess.run, program, timeout=50, capture_output=True, text=True)
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode


# Poison, outages, stops


@pytest.mark.usefixtures("hasty")
async def test_a_poison_event_goes_to_the_queue_and_the_stream_goes_on(tmp_path: Path) -> None:
    async def poison(step: str) -> None:
        if step == "item of ORD_1":
            raise ValueError("no such item")

    steps = Steps(poison)
    async with checkout(tmp_path, steps) as bundle:
        for number in range(3):
            await bundle.commands.send(OrderPlaceCommand(f"ORD_{number}", "ann"))
        await bundle.consumers_caught_up(20)
        status = status_of(bundle)
        assert (status.dead, status.waiting, status.state) == (1, 1, ConsumerState.RUNNING)
        assert status.last_error == "ValueError: no such item"
    assert steps.seen.count("item of ORD_1") == 4  # the default: three retries; its second item waits
    found = await stories(tmp_path)
    assert found["ORD_0"] == found["ORD_2"] == COMPLETE
    assert found["ORD_1"] == COMPLETE[:3]


@pytest.mark.usefixtures("hasty")
async def test_a_service_that_is_down_is_waited_for(tmp_path: Path) -> None:
    down = True

    class FlakyService(Service):
        @command_handler
        async def capture(self, command: PaymentCaptureCommand) -> PaymentCapturedEvent:
            if down:
                raise TransientError("the bank does not answer")
            return PaymentCapturedEvent(command.order_id, command.amount)

    components = (OrderAggregate, FlakyService, CheckoutSaga)
    steps = Steps()
    async with checkout(tmp_path, steps, components=components) as bundle:
        await bundle.commands.send(OrderPlaceCommand("ORD_0", "ann"))
        await until(bundle, state=ConsumerState.RETRYING, last_error="TransientError: the bank does not answer")
        await eventually(lambda: steps.seen.count("item of ORD_0") >= 6)
        assert (status_of(bundle).dead, status_of(bundle).healthy) == (0, False)
        down = False
        await bundle.consumers_caught_up(20)
        assert (status_of(bundle).dead, status_of(bundle).healthy) == (0, True)
    assert await stories(tmp_path) == {"ORD_0": COMPLETE}


@pytest.mark.usefixtures("hasty")
async def test_a_handler_that_is_not_there_is_waited_for_across_stops(tmp_path: Path) -> None:
    steps = Steps()
    for _ in range(2):
        async with checkout(tmp_path, steps, components=(OrderAggregate, CheckoutSaga)) as bundle:
            await bundle.commands.send(OrderPlaceCommand("ORD_0", "ann"), message_id="place")
            await until(bundle, state=ConsumerState.RETRYING)
            assert (status_of(bundle).last_error or "").startswith("HandlerNotFound: ")
    async with checkout(tmp_path, steps) as bundle:
        await bundle.consumers_caught_up(20)
        assert status_of(bundle).dead == 0
    assert await stories(tmp_path) == {"ORD_0": COMPLETE}


async def test_a_stop_in_the_middle_of_a_retry_neither_parks_nor_skips(tmp_path: Path) -> None:
    poisoned = True

    async def fail(step: str) -> None:
        if poisoned and step == "item of ORD_0 counted":
            raise ValueError("not yet")

    async with checkout(tmp_path, Steps(fail)) as bundle:
        await bundle.commands.send(OrderPlaceCommand("ORD_0", "ann"))
        await until(bundle, state=ConsumerState.RETRYING, errors=1)
    poisoned = False
    async with checkout(tmp_path, Steps(fail)) as bundle:
        await bundle.consumers_caught_up(20)
        assert status_of(bundle).dead == 0
    assert await stories(tmp_path) == {"ORD_0": COMPLETE}


@pytest.mark.usefixtures("hasty")
async def test_a_command_that_is_sent_again_has_the_same_id(tmp_path: Path) -> None:
    """The second and third attempt send what the first has sent already, and more: each takes effect once."""

    class InsistentSaga(Saga[CheckoutState], version=1):
        attempts = 0

        @saga_event_handler(init=True, association_property="order_id")
        async def on_placed(self, event: OrderPlacedEvent, commands: CommandGateway) -> CheckoutState:
            InsistentSaga.attempts += 1
            state = CheckoutState()
            state.set_association("order_id", event.order_id)
            for number in range(InsistentSaga.attempts):
                await commands.send(ItemAddCommand(event.order_id, f"item {number}"))
            if InsistentSaga.attempts < 3:
                raise TransientError("not yet")
            return state

    async with checkout(tmp_path, Steps(), components=(OrderAggregate, InsistentSaga)) as bundle:
        await bundle.commands.send(OrderPlaceCommand("ORD_0", "ann"))
        await bundle.consumers_caught_up(20)
    assert await stories(tmp_path) == {"ORD_0": ["OrderPlacedEvent", *["ItemAddedEvent"] * 3]}
