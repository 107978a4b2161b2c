"""Domain commands: one event each, decided on the current state, stored at most once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from shop import (
    ItemAddCommand,
    ItemAddedEvent,
    OrderCancelCommand,
    OrderCancelledEvent,
    OrderPlaceCommand,
    OrderPlacedEvent,
)

from evento import (
    Aggregate,
    AggregateAlreadyInitialized,
    AggregateDeleted,
    AggregateId,
    AggregateNotInitialized,
    AggregateState,
    CommandRejected,
    EventoBundle,
    HandlerNotFound,
    PayloadError,
    RequestTimeout,
    View,
    aggregate_command_handler,
)
from evento.messages import DomainCommand, DomainEvent


async def test_a_command_returns_the_event_that_it_produced(bundle: EventoBundle) -> None:
    event = await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
    assert event == OrderPlacedEvent("ORD_1", "ann")


async def test_send_message_tells_position_version_and_ids(bundle: EventoBundle) -> None:
    await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
    message = await bundle.commands.send_message(
        ItemAddCommand("ORD_1", "tea"), metadata={"user": "ann"}, message_id="add-1"
    )
    assert message.payload == ItemAddedEvent("ORD_1", "tea", 1)
    assert (message.position, message.version, message.aggregate_id) == (2, 2, "ORD_1")
    assert message.metadata == {"user": "ann"}
    assert message.causation_id == "add-1"
    assert message.correlation_id == "add-1"
    assert message.context == "default"


async def test_metadata_reaches_the_handler_and_may_choose_the_context(bundle: EventoBundle) -> None:
    message = await bundle.commands.send_message(OrderPlaceCommand("ORD_1", "ann"), metadata={"context": "eu"})
    assert message.context == "eu"


async def test_commands_need_an_init_command_and_only_one(bundle: EventoBundle) -> None:
    with pytest.raises(AggregateNotInitialized, match=r"ORD_1.*: OrderPlaceCommand$"):
        await bundle.commands.send(ItemAddCommand("ORD_1", "tea"))
    await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
    with pytest.raises(AggregateAlreadyInitialized, match="ORD_1"):
        await bundle.commands.send(OrderPlaceCommand("ORD_1", "bob"))


class ThingChangedEvent(DomainEvent):
    thing_id: str


class ThingChangeCommand(DomainCommand[ThingChangedEvent]):
    thing_id: AggregateId


class ThingAggregate(Aggregate[AggregateState]):
    @aggregate_command_handler
    def change(self, command: ThingChangeCommand, state: AggregateState) -> ThingChangedEvent:
        return ThingChangedEvent(command.thing_id)


async def test_an_aggregate_without_an_init_handler_is_told_to_declare_one() -> None:
    async with EventoBundle("things", components=[ThingAggregate], server="embedded:") as bundle:
        with pytest.raises(AggregateNotInitialized, match=r"ThingAggregate has no init handler: .*\(init=True\)"):
            await bundle.commands.send(ThingChangeCommand("T_1"))


async def test_a_rejection_arrives_with_its_data_and_stores_nothing(bundle: EventoBundle) -> None:
    await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
    with pytest.raises(CommandRejected, match="at most 100") as caught:
        await bundle.commands.send(ItemAddCommand("ORD_1", "tea", 101))
    assert caught.value.data == {"total": 0}
    assert caught.value.type == "CommandRejected"
    assert caught.value.definite
    message = await bundle.commands.send_message(ItemAddCommand("ORD_1", "tea", 100))
    assert message.version == 2


@pytest.mark.parametrize("cold", [False, True])
async def test_a_deleted_aggregate_takes_no_command(make_bundle: Callable[..., EventoBundle], cold: bool) -> None:
    options: dict[str, Any] = {"state_cache_size": 0} if cold else {}
    async with make_bundle(**options) as bundle:
        await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
        assert await bundle.commands.send(OrderCancelCommand("ORD_1")) == OrderCancelledEvent("ORD_1")
        for command in (ItemAddCommand("ORD_1", "tea"), OrderCancelCommand("ORD_1"), OrderPlaceCommand("ORD_1", "bob")):
            with pytest.raises(AggregateDeleted, match="ORD_1"):
                await bundle.commands.send(command)
    async with make_bundle() as bundle:
        with pytest.raises(AggregateDeleted, match="ORD_1"):
            await bundle.commands.send(ItemAddCommand("ORD_1", "tea"))


async def test_resending_with_the_message_id_returns_the_same_event_and_appends_nothing(bundle: EventoBundle) -> None:
    await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
    first = await bundle.commands.send_message(ItemAddCommand("ORD_1", "tea"), message_id="once")
    again = await bundle.commands.send_message(ItemAddCommand("ORD_1", "tea"), message_id="once")
    assert (again.position, again.version, again.message_id) == (first.position, first.version, first.message_id)
    following = await bundle.commands.send_message(ItemAddCommand("ORD_1", "tea"))
    assert following.version == 3


async def test_resending_a_command_that_would_now_be_rejected_returns_its_event(bundle: EventoBundle) -> None:
    placed = await bundle.commands.send_message(OrderPlaceCommand("ORD_1", "ann"), message_id="place")
    filled = await bundle.commands.send_message(ItemAddCommand("ORD_1", "tea", 100), message_id="fill")
    assert (await bundle.commands.send_message(OrderPlaceCommand("ORD_1", "ann"), message_id="place")).position == (
        placed.position
    )
    assert (await bundle.commands.send_message(ItemAddCommand("ORD_1", "tea", 100), message_id="fill")).position == (
        filled.position
    )
    cancelled = await bundle.commands.send_message(OrderCancelCommand("ORD_1"), message_id="cancel")
    assert (await bundle.commands.send_message(OrderCancelCommand("ORD_1"), message_id="cancel")).position == (
        cancelled.position
    )


async def test_a_message_id_of_another_command_is_refused(bundle: EventoBundle) -> None:
    await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"), message_id="mine")
    await bundle.commands.send(OrderPlaceCommand("ORD_2", "bob"))
    with pytest.raises(PayloadError, match="belongs to another command"):
        await bundle.commands.send(ItemAddCommand("ORD_2", "tea"), message_id="mine")


async def test_64_concurrent_commands_are_decided_one_after_another(bundle: EventoBundle) -> None:
    await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
    ids = [f"add-{number}" for number in range(64)]
    messages = await asyncio.gather(
        *(bundle.commands.send_message(ItemAddCommand("ORD_1", "tea"), message_id=each) for each in ids)
    )
    assert sorted(message.version or 0 for message in messages) == list(range(2, 66))
    again = await asyncio.gather(
        *(bundle.commands.send_message(ItemAddCommand("ORD_1", "tea"), message_id=each) for each in ids)
    )
    assert [message.position for message in again] == [message.position for message in messages]
    assert (await bundle.commands.send_message(ItemAddCommand("ORD_1", "tea"))).version == 66


async def test_the_limit_holds_under_concurrent_commands(bundle: EventoBundle) -> None:
    await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
    outcomes = await asyncio.gather(
        *(bundle.commands.send(ItemAddCommand("ORD_1", "tea", 10)) for _ in range(30)), return_exceptions=True
    )
    assert sum(isinstance(outcome, ItemAddedEvent) for outcome in outcomes) == 10
    assert sum(isinstance(outcome, CommandRejected) for outcome in outcomes) == 20


async def test_commands_under_different_lock_ids_never_share_a_state(bundle: EventoBundle) -> None:
    await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
    outcomes = await asyncio.gather(
        *(bundle.commands.send(ItemAddCommand("ORD_1", "tea", 10, lock=f"LOCK_{n % 5}")) for n in range(30)),
        *(bundle.commands.send(ItemAddCommand("ORD_1", "tea", 10)) for _ in range(10)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, ItemAddedEvent) for outcome in outcomes) == 10
    assert sum(isinstance(outcome, CommandRejected) for outcome in outcomes) == 30


async def test_a_lock_id_of_none_gives_the_promise_up_knowingly(bundle: EventoBundle) -> None:
    await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
    messages = await asyncio.gather(
        *(bundle.commands.send_message(ItemAddCommand("ORD_1", "tea", 10, lock=None)) for _ in range(3))
    )
    assert sorted(message.version or 0 for message in messages) == [2, 3, 4]
    with pytest.raises(CommandRejected):
        await bundle.commands.send(ItemAddCommand("ORD_1", "tea", 71))


@pytest.mark.parametrize("order_id", ["", "x" * 401])
async def test_an_impossible_aggregate_id_is_a_payload_error(bundle: EventoBundle, order_id: str) -> None:
    with pytest.raises(PayloadError, match="aggregate id must be"):
        await bundle.commands.send(OrderPlaceCommand(order_id, "ann"))


async def test_wrong_types_are_refused_before_anything_is_sent(bundle: EventoBundle) -> None:
    with pytest.raises(PayloadError, match="customer"):
        await bundle.commands.send(OrderPlaceCommand("ORD_1", 1))  # type: ignore[arg-type]
    with pytest.raises(PayloadError, match="NUL"):
        await bundle.commands.send(OrderPlaceCommand("ORD_1", "a\0b"))
    with pytest.raises(PayloadError, match="str to str"):
        await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"), metadata={"n": 1})  # type: ignore[dict-item]
    with pytest.raises(PayloadError, match="message_id"):
        await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"), message_id="")
    with pytest.raises(PayloadError, match="not a command"):
        await bundle.commands.send(View())  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [0.0, -1.0, 301.0])
async def test_a_timeout_is_at_most_five_minutes(bundle: EventoBundle, timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"), timeout=timeout)


async def test_an_unknown_command_has_no_handler(bundle: EventoBundle) -> None:
    class LostCommand(DomainCommand):
        @property
        def aggregate_id(self) -> str:
            return "LOST"

    with pytest.raises(HandlerNotFound, match="LostCommand") as caught:
        await bundle.commands.send(LostCommand())
    assert caught.value.definite


async def test_the_sender_keeps_its_own_copy(make_bundle: Callable[..., EventoBundle]) -> None:
    class BoxFilledEvent(DomainEvent):
        box_id: str
        things: list[str]

    class BoxFillCommand(DomainCommand[BoxFilledEvent]):
        box_id: AggregateId
        things: list[str]

    class BoxState(AggregateState):
        pass

    class Box(Aggregate[BoxState]):
        @aggregate_command_handler(init=True)
        def fill(self, command: BoxFillCommand) -> BoxFilledEvent:
            command.things.append("changed by the handler")
            return BoxFilledEvent(command.box_id, command.things)

    async with make_bundle(components=[Box]) as bundle:
        things = ["a"]
        event = await bundle.commands.send(BoxFillCommand("BOX_1", things))
    assert things == ["a"]
    assert event.things == ["a", "changed by the handler"]


async def test_the_deadline_cancels_a_running_handler(make_bundle: Callable[..., EventoBundle]) -> None:
    from evento import Service, ServiceCommand, command_handler

    started, cancelled = asyncio.Event(), asyncio.Event()

    class SlowCommand(ServiceCommand[None]):
        pass

    class SlowService(Service):
        @command_handler
        async def slow(self, command: SlowCommand) -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

    async with make_bundle(components=[SlowService]) as bundle:
        with pytest.raises(RequestTimeout, match="message_id") as caught:
            await bundle.commands.send(SlowCommand(), timeout=1.0)
        assert started.is_set()
        assert cancelled.is_set()
        assert not caught.value.definite
