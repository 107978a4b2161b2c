"""States that others have changed meanwhile: no command is decided on one, and none is rejected on one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from evento import (
    Aggregate,
    AggregateId,
    AggregateState,
    CommandRejected,
    DomainCommand,
    DomainEvent,
    EventoBundle,
    aggregate_command_handler,
    event_sourcing_handler,
)
from evento.messages import new_id, now_micros, seal
from evento.state_store import Append, NewEvent, StateStore

MakeBundle = Callable[..., EventoBundle]


class TankMadeEvent(DomainEvent):
    tank_id: str


class TankChangedEvent(DomainEvent):
    tank_id: str
    amount: int


class TankMakeCommand(DomainCommand[TankMadeEvent]):
    tank_id: AggregateId


class TankChangeCommand(DomainCommand[TankChangedEvent]):
    tank_id: AggregateId
    amount: int
    lock: str | None = "own"
    gate: str = ""

    @property
    def lock_id(self) -> str | None:
        return self.tank_id if self.lock == "own" else self.lock


class TankState(AggregateState):
    amount: int = 0


class Gates:
    """Where handlers wait until the test lets them go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()


class Tank(Aggregate[TankState], snapshot_frequency=1):
    """Holds 10."""

    def __init__(self, gates: Gates) -> None:
        self._gates = gates

    @aggregate_command_handler(init=True)
    def make(self, command: TankMakeCommand) -> TankMadeEvent:
        return TankMadeEvent(command.tank_id)

    @aggregate_command_handler
    async def change(self, command: TankChangeCommand, state: TankState) -> TankChangedEvent:
        amount = state.amount
        if command.gate:
            self._gates.reached.set()
            await self._gates.open.wait()
        if not 0 <= amount + command.amount <= 10:
            raise CommandRejected("too much or too little", amount=amount)
        return TankChangedEvent(command.tank_id, command.amount)

    @event_sourcing_handler
    def on_made(self, event: TankMadeEvent) -> TankState:
        return TankState()

    @event_sourcing_handler
    def on_changed(self, event: TankChangedEvent, state: TankState) -> None:
        state.amount += event.amount


@pytest.fixture
def gates() -> Gates:
    return Gates()


async def test_no_rejection_on_a_state_that_a_command_without_a_lock_has_changed(
    make_bundle: MakeBundle, gates: Gates
) -> None:
    async with make_bundle(components=[Tank], injector={Gates: gates}) as bundle:
        await bundle.commands.send(TankMakeCommand("T"))
        await bundle.commands.send(TankChangeCommand("T", 10))
        unlocked = asyncio.create_task(bundle.commands.send(TankChangeCommand("T", -5, lock=None, gate="shut")))
        await gates.reached.wait()
        # Meanwhile the cache learns a state that the command without a lock does not know of, and will change.
        await bundle.commands.send(TankChangeCommand("T", 0))
        gates.open.set()
        await unlocked
        await bundle.commands.send(TankChangeCommand("T", 5))
        with pytest.raises(CommandRejected):
            await bundle.commands.send(TankChangeCommand("T", 1))


async def test_no_command_is_decided_or_rejected_on_a_state_that_another_process_has_changed(
    make_bundle: MakeBundle, gates: Gates
) -> None:
    async with make_bundle(components=[Tank], injector={Gates: gates}) as bundle:
        assert bundle._running is not None
        store = bundle._running.store
        await bundle.commands.send(TankMakeCommand("T"))
        await bundle.commands.send(TankChangeCommand("T", 10))
        await store.append(_changed("T", -5, expected_version=2))
        await bundle.commands.send(TankChangeCommand("T", 5))
        await store.append(_changed("T", -10, expected_version=4))
        with pytest.raises(CommandRejected) as caught:
            await bundle.commands.send(TankChangeCommand("T", -1))
        assert caught.value.data == {"amount": 0}
        message = await bundle.commands.send_message(TankChangeCommand("T", 1))
        assert message.version == 6


class Rival:
    """Another process, which stores an event of a tank whenever one of this process is decided, some times."""

    def __init__(self) -> None:
        self.store: StateStore
        self.turns = 0
        self.version = 0
        self.folded = 0

    async def overtake(self, tank_id: str) -> None:
        if self.turns:
            self.turns -= 1
            await self.store.append(_changed(tank_id, 0, expected_version=self.version))
            self.version += 1


class ContestedTank(Tank, snapshot_frequency=-1):
    """One whose decisions are overtaken."""

    def __init__(self, gates: Gates, rival: Rival) -> None:
        super().__init__(gates)
        self._rival = rival

    @aggregate_command_handler
    async def change(self, command: TankChangeCommand, state: TankState) -> TankChangedEvent:
        await self._rival.overtake(command.tank_id)
        return TankChangedEvent(command.tank_id, state.amount + command.amount)

    @event_sourcing_handler
    def on_changed(self, event: TankChangedEvent, state: TankState) -> None:
        self._rival.folded += 1
        state.amount = event.amount


async def test_a_command_that_others_overtake_again_and_again_reads_only_what_it_lacks(
    make_bundle: MakeBundle, gates: Gates
) -> None:
    rival, history, turns = Rival(), 100, 8
    async with make_bundle(components=[ContestedTank], injector={Gates: gates, Rival: rival}) as bundle:
        assert bundle._running is not None
        rival.store = bundle._running.store
        await bundle.commands.send(TankMakeCommand("T"))
        for _ in range(history):
            await bundle.commands.send(TankChangeCommand("T", 1))
        rival.version, rival.turns, rival.folded = history + 1, turns, 0
        message = await bundle.commands.send_message(TankChangeCommand("T", 7))
        assert (message.version, message.payload.amount) == (history + 2 + turns, 7)
        # The whole history once, what the rival has stored, and the decision of each attempt.
        assert rival.folded <= history + 2 * turns + 2
        assert (await bundle.commands.send(TankChangeCommand("T", 1))).amount == 8


def _changed(tank_id: str, amount: int, *, expected_version: int) -> Append:
    """Return the append of another process."""
    message_id = new_id()
    event = NewEvent(
        context="default",
        aggregate_id=tank_id,
        name="TankChangedEvent",
        schema_version=1,
        kind="domain",
        payload=seal(TankChangedEvent(tank_id, amount))[0],
        metadata=b"{}",
        event_id=new_id(),
        command_id=message_id,
        correlation_id=message_id,
        causation_id=None,
        timestamp=now_micros(),
    )
    return Append(event, expected_version=expected_version, boundary=tank_id)
