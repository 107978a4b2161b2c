"""Folding: the state is the same live and on replay, and each component has its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from work import inside

from evento import (
    Aggregate,
    AggregateId,
    AggregateState,
    DefinitionError,
    DomainCommand,
    DomainEvent,
    EventoBundle,
    aggregate_command_handler,
    event_sourcing_handler,
)

MakeBundle = Callable[..., EventoBundle]


class DoorMadeEvent(DomainEvent):
    door_id: str


class DoorPaintedEvent(DomainEvent):
    door_id: str
    coats: int


class DoorMakeCommand(DomainCommand[DoorMadeEvent]):
    door_id: AggregateId


class DoorPaintCommand(DomainCommand[DoorPaintedEvent]):
    door_id: AggregateId


class DoorState(AggregateState):
    made: bool = False


class PaintState(AggregateState):
    coats: int = 0


class Door(Aggregate[DoorState]):
    @aggregate_command_handler(init=True)
    def make(self, command: DoorMakeCommand) -> DoorMadeEvent:
        return DoorMadeEvent(command.door_id)

    @event_sourcing_handler
    def on_made(self, event: DoorMadeEvent) -> DoorState:
        return DoorState(made=True)


class Paint(Aggregate[PaintState]):
    @aggregate_command_handler
    def paint(self, command: DoorPaintCommand, state: PaintState) -> DoorPaintedEvent:
        return DoorPaintedEvent(command.door_id, state.coats + 1)

    @event_sourcing_handler
    def on_painted(self, event: DoorPaintedEvent, state: PaintState) -> None:
        state.coats = event.coats


@pytest.mark.parametrize("cache", [0, 100])
async def test_each_component_folds_its_own_state_whether_it_is_cached_or_not(
    make_bundle: MakeBundle, cache: int
) -> None:
    async with make_bundle(components=[Door, Paint], state_cache_size=cache) as bundle:
        await bundle.commands.send(DoorMakeCommand("DOOR_1"))
        for coats in (1, 2):
            message = await bundle.commands.send_message(DoorPaintCommand("DOOR_1"))
            assert (message.version, message.payload.coats) == (1 + coats, coats)


class JarMadeEvent(DomainEvent):
    jar_id: str


class JarFilledEvent(DomainEvent):
    jar_id: str
    level: int


class JarMakeCommand(DomainCommand[JarMadeEvent]):
    jar_id: AggregateId


class JarFillCommand(DomainCommand[JarFilledEvent]):
    jar_id: AggregateId


class JarState(AggregateState):
    level: int = 0


class Jar(Aggregate[JarState]):
    """Nobody folds the first event: the state begins with its defaults."""

    @aggregate_command_handler(init=True)
    def make(self, command: JarMakeCommand) -> JarMadeEvent:
        return JarMadeEvent(command.jar_id)

    @aggregate_command_handler
    def fill(self, command: JarFillCommand, state: JarState) -> JarFilledEvent:
        return JarFilledEvent(command.jar_id, state.level + 1)

    @event_sourcing_handler
    def on_filled(self, event: JarFilledEvent, state: JarState) -> None:
        state.level = event.level


async def test_a_first_event_that_nobody_folds_leaves_the_defaults_live_and_on_replay(make_bundle: MakeBundle) -> None:
    async with make_bundle(components=[Jar]) as bundle:
        await bundle.commands.send(JarMakeCommand("JAR_1"))
        assert (await bundle.commands.send(JarFillCommand("JAR_1"))).level == 1
    async with make_bundle(components=[Jar]) as bundle:
        assert (await bundle.commands.send(JarFillCommand("JAR_1"))).level == 2


class CrateMadeEvent(DomainEvent):
    crate_id: str


class CrateMakeCommand(DomainCommand[CrateMadeEvent]):
    crate_id: AggregateId


class CrateState(AggregateState):
    size: int  # without a default


class Crate(Aggregate[CrateState]):
    @aggregate_command_handler(init=True)
    def make(self, command: CrateMakeCommand) -> CrateMadeEvent:
        return CrateMadeEvent(command.crate_id)


async def test_a_state_that_nobody_can_make_is_an_error_before_anything_is_stored(make_bundle: MakeBundle) -> None:
    async with make_bundle(components=[Crate]) as bundle:
        with pytest.raises(DefinitionError, match="cannot be made without arguments") as caught:
            await bundle.commands.send(CrateMakeCommand("CRATE_1"))
        assert caught.value.definite
        assert await inside(bundle).store.head() == 0
