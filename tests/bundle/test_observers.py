"""Observers in a real bundle: they react with commands, and what crashes or is missing only delays them."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from shop import (
    ItemAddCommand,
    ItemAddedEvent,
    Ledger,
    MailSendCommand,
    OrderAggregate,
    OrderPlaceCommand,
    OrderPlacedEvent,
    PaymentService,
)
from waiting import eventually

from evento import CommandGateway, EventoBundle, Observer, QueryGateway, event_handler
from evento.consumers import ConsumerState, observation
from evento.consumers.failures import Backoff
from evento.state_store.sqlite import SqliteStateStore

SUPPORT = Path(__file__).parent.parent / "support"


class GiftObserver(Observer, version=1):
    """Each new order gets a gift, and each gift a mail."""

    @event_handler
    async def on_placed(self, event: OrderPlacedEvent, commands: CommandGateway, queries: QueryGateway) -> None:
        await commands.send(ItemAddCommand(event.order_id, "gift"))

    @event_handler
    async def on_added(self, event: ItemAddedEvent, commands: CommandGateway) -> None:
        await commands.send(MailSendCommand(f"a {event.sku} for {event.order_id}"))


def shop(directory: Path, ledger: Ledger, *components: type) -> EventoBundle:
    """Return the bundle."""
    return EventoBundle(
        "gifts",
        components=components or (OrderAggregate, PaymentService, GiftObserver),
        server=f"embedded:{directory / 'shop.db'}",
        injector={Ledger: ledger},
    )


async def names(directory: Path) -> list[str]:
    """Return the names of the stored events."""
    async with SqliteStateStore(directory / "shop.db") as store:
        return [event.name for event in (await store.fetch(0, limit=10_000)).events]


async def test_what_an_observer_brings_about_is_waited_for(tmp_path: Path) -> None:
    ledger = Ledger()
    async with shop(tmp_path, ledger) as bundle:
        for number in range(50):
            await bundle.commands.send(OrderPlaceCommand(f"ORD_{number}", "ann"))
        await bundle.consumers_caught_up(20)
        assert sorted(ledger.mails) == sorted(f"a gift for ORD_{number}" for number in range(50))
    assert sorted(await names(tmp_path)) == ["ItemAddedEvent"] * 50 + ["OrderPlacedEvent"] * 50


async def test_a_handler_that_is_not_there_is_waited_for_across_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observation, "Backoff", lambda first=0.1, **options: Backoff(0.01, **options))
    ledger = Ledger()
    async with shop(tmp_path, ledger, OrderAggregate, GiftObserver) as bundle:
        await bundle.commands.send(OrderPlaceCommand("ORD_0", "ann"))

        def fails_again_and_again() -> bool:
            (status,) = bundle._up().consumers.statuses()
            return status.errors > 5 and status.state is ConsumerState.RETRYING  # not in the middle of an attempt

        await eventually(fails_again_and_again)
        (status,) = bundle._up().consumers.statuses()
        assert (status.last_error or "").startswith("HandlerNotFound: ")
    async with shop(tmp_path, ledger) as bundle:
        await bundle.consumers_caught_up(20)
        (status,) = bundle._up().consumers.statuses()
        assert (status.dead, status.state) == (0, ConsumerState.RUNNING)
    assert ledger.mails == ["a gift for ORD_0"]


VICTIM = """
import asyncio, os, signal, sys
sys.path[:0] = [{support!r}, {here!r}]
from pathlib import Path
from test_observers import shop
from shop import Ledger, OrderPlaceCommand
from evento.consumers.observers import ObserverDelivery

deliver, events = ObserverDelivery.deliver, 0

async def deliver_and_die(self, event, attempt):
    global events
    await deliver(self, event, attempt)
    events += 1
    if events == {kill_after}:
        os.kill(os.getpid(), signal.SIGKILL)

ObserverDelivery.deliver = deliver_and_die

async def main():
    async with shop(Path({directory!r}), Ledger()) as bundle:
        for number in range(10):
            await bundle.commands.send(OrderPlaceCommand(f"ORD_{{number}}", "ann"), message_id=f"place-{{number}}")
        await bundle.consumers_caught_up(30)

asyncio.run(main())
"""


@pytest.mark.parametrize("kill_after", [1, 5, 14])
async def test_killed_in_its_handler_it_handles_the_event_again_and_no_command_takes_effect_twice(
    tmp_path: Path, kill_after: int
) -> None:
    for kill, expected in ((kill_after, -signal.SIGKILL), (2, -signal.SIGKILL), (0, 0)):
        program = VICTIM.format(
            support=str(SUPPORT), here=str(Path(__file__).parent), kill_after=kill, directory=str(tmp_path)
        )
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", program], timeout=50, capture_output=True, text=True
        )
        assert done.returncode == expected, done.stderr
    assert sorted(await names(tmp_path)) == ["ItemAddedEvent"] * 10 + ["OrderPlacedEvent"] * 10
