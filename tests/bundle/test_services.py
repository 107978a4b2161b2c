"""Service commands: events stored at most once, locks that exclude, attempts that are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from shop import (
    COMPONENTS,
    ItemAddCommand,
    Ledger,
    MailSendCommand,
    OrderPlaceCommand,
    PaymentCaptureCommand,
    PaymentCapturedEvent,
    TransferCommand,
)

from evento import (
    Aggregate,
    AggregateId,
    AggregateState,
    CommandGateway,
    CommandMessage,
    CommandRejected,
    DomainCommand,
    DomainEvent,
    EventoBundle,
    HandlerError,
    LeaseLost,
    PayloadError,
    QueryGateway,
    RequestTimeout,
    Service,
    ServiceCommand,
    ServiceEvent,
    WouldDeadlock,
    aggregate_command_handler,
    command_handler,
)

MakeBundle = Callable[..., EventoBundle]


async def test_the_event_of_a_service_is_stored_under_its_lock_id(bundle: EventoBundle) -> None:
    message = await bundle.commands.send_message(PaymentCaptureCommand("ORD_1", 5))
    assert message is not None
    assert message.aggregate_id == "PAY_ORD_1"
    assert message.payload == PaymentCapturedEvent("ORD_1", 5, 1)


async def test_a_void_command_returns_none_and_stores_nothing(make_bundle: MakeBundle) -> None:
    ledger = Ledger()
    async with make_bundle(ledger=ledger) as bundle:
        assert list(await asyncio.gather(bundle.commands.send(MailSendCommand("hello")))) == [None]
        assert (await bundle.commands.send_message(OrderPlaceCommand("ORD_1", "ann"))).position == 1
    assert ledger.mails == ["hello"]


async def test_commands_under_one_lock_run_one_after_another_with_rising_fencing_tokens(
    make_bundle: MakeBundle,
) -> None:
    ledger = Ledger()
    async with make_bundle(ledger=ledger) as bundle:
        events = await asyncio.gather(*(bundle.commands.send(PaymentCaptureCommand("ORD_1", n)) for n in range(20)))
    assert ledger.overlaps == 0
    assert [event.token for event in events] == sorted({event.token for event in events})


async def test_the_lock_is_free_after_a_rejection_and_after_a_timeout(make_bundle: MakeBundle) -> None:
    release = asyncio.Event()

    class HangCommand(ServiceCommand[None]):
        hang: bool

        @property
        def lock_id(self) -> str | None:
            return "HANG"

    class HangService(Service):
        @command_handler
        async def hang(self, command: HangCommand) -> None:
            if command.hang:
                await release.wait()

    async with make_bundle(components=[*COMPONENTS, HangService]) as bundle:
        with pytest.raises(CommandRejected):
            await bundle.commands.send(PaymentCaptureCommand("ORD_1", -1))
        await bundle.commands.send(PaymentCaptureCommand("ORD_1", 1), timeout=5)
        with pytest.raises(RequestTimeout):
            await bundle.commands.send(HangCommand(True), timeout=0.05)
        await bundle.commands.send(HangCommand(False), timeout=5)


async def test_a_resend_does_not_run_the_handler_again_when_the_outcome_is_known(make_bundle: MakeBundle) -> None:
    ledger = Ledger()
    async with make_bundle(ledger=ledger) as bundle:
        first = await bundle.commands.send_message(PaymentCaptureCommand("ORD_1", 5), message_id="pay")
    async with make_bundle(ledger=ledger) as bundle:
        again = await bundle.commands.send_message(PaymentCaptureCommand("ORD_1", 5), message_id="pay")
    assert first is not None
    assert again is not None
    assert again.position == first.position
    assert ledger.calls == [("pay", 1)]


async def test_a_resend_after_a_timeout_tells_its_attempt(make_bundle: MakeBundle) -> None:
    attempts: list[tuple[str, int]] = []

    class SlowCommand(ServiceCommand[None]):
        pass

    class SlowService(Service):
        @command_handler
        async def slow(self, command: SlowCommand, message: CommandMessage[SlowCommand]) -> None:
            attempts.append((message.message_id, message.attempt))
            if message.attempt == 1:
                await asyncio.Event().wait()

    async with make_bundle(components=[SlowService]) as bundle:
        with pytest.raises(RequestTimeout):
            await bundle.commands.send(SlowCommand(), message_id="slow", timeout=1.0)
        await bundle.commands.send(SlowCommand(), message_id="slow")
    assert attempts == [("slow", 1), ("slow", 2)]


async def test_a_lost_lock_is_no_rejection_of_the_message_id(make_bundle: MakeBundle) -> None:
    """It says to send the command again, so a later attempt with the same id must get through."""

    class SlowCommand(ServiceCommand[None]):
        pass

    class SlowService(Service):
        @command_handler
        async def slow(self, command: SlowCommand, message: CommandMessage[SlowCommand]) -> None:
            if message.attempt == 1:
                await asyncio.Event().wait()
            if message.attempt == 2:
                raise LeaseLost("a service that it has asked lost its lock")

    async with make_bundle(components=[SlowService]) as bundle:
        with pytest.raises(RequestTimeout):
            await bundle.commands.send(SlowCommand(), message_id="slow", timeout=0.05)
        with pytest.raises(LeaseLost):
            await bundle.commands.send(SlowCommand(), message_id="slow")
        await bundle.commands.send(SlowCommand(), message_id="slow")


@pytest.mark.parametrize("wrong", [7, "no event at all"])
async def test_a_wrong_result_of_a_resend_does_not_hide_that_the_first_attempt_took_effect(
    make_bundle: MakeBundle, wrong: object
) -> None:
    entered, release = asyncio.Event(), asyncio.Event()
    sends: list[asyncio.Task[Any]] = []

    class SentEvent(ServiceEvent):
        text: str

    class SendCommand(ServiceCommand[SentEvent]):
        pass

    class Sender(Service):
        @command_handler
        async def send(self, command: SendCommand, message: CommandMessage[SendCommand]) -> SentEvent:
            if message.attempt == 1:
                entered.set()
                await release.wait()
                return SentEvent("first")
            release.set()
            await sends[0]
            return SentEvent(cast(str, wrong)) if isinstance(wrong, int) else cast(SentEvent, wrong)

    async with make_bundle(components=[Sender]) as bundle:
        sends.append(asyncio.create_task(bundle.commands.send(SendCommand(), message_id="one")))
        await entered.wait()
        assert await bundle.commands.send(SendCommand(), message_id="one") == SentEvent("first")
        assert await sends[0] == SentEvent("first")


async def test_a_handler_may_send_commands_with_ids_of_their_own(bundle: EventoBundle) -> None:
    for order in ("ORD_1", "ORD_2"):
        await bundle.commands.send(OrderPlaceCommand(order, "ann"))
    await bundle.commands.send(TransferCommand("ORD_1", "ORD_2", "tea"), message_id="move")
    await bundle.commands.send(TransferCommand("ORD_1", "ORD_2", "tea"), message_id="move")
    assert (await bundle.commands.send_message(ItemAddCommand("ORD_1", "tea"))).position == 5


async def test_an_unexpected_error_arrives_with_its_type_and_message(make_bundle: MakeBundle) -> None:
    class BreakCommand(ServiceCommand[None]):
        pass

    class BreakService(Service):
        @command_handler
        def broken(self, command: BreakCommand) -> None:
            raise ZeroDivisionError("no such luck")

    async with make_bundle(components=[BreakService]) as bundle:
        with pytest.raises(HandlerError, match="no such luck") as caught:
            await bundle.commands.send(BreakCommand())
    assert caught.value.type == "ZeroDivisionError"
    assert caught.value.traceback is None


async def test_a_subclass_of_a_rejection_arrives_as_a_rejection(make_bundle: MakeBundle) -> None:
    class TooLate(CommandRejected):
        pass

    class LateCommand(ServiceCommand[None]):
        pass

    class LateService(Service):
        @command_handler
        def late(self, command: LateCommand) -> None:
            raise TooLate("closed", hour=18)

    async with make_bundle(components=[LateService]) as bundle:
        with pytest.raises(CommandRejected) as caught:
            await bundle.commands.send(LateCommand())
    assert (caught.value.type, caught.value.message, caught.value.data) == ("TooLate", "closed", {"hour": 18})


async def test_a_command_that_waits_for_its_own_cause_is_refused_at_once(make_bundle: MakeBundle) -> None:
    class NodeTouchedEvent(DomainEvent):
        node_id: str

    class NodeTouchCommand(DomainCommand[NodeTouchedEvent]):
        node_id: AggregateId
        touch: str

    class NodeState(AggregateState):
        pass

    class Node(Aggregate[NodeState]):
        @aggregate_command_handler(init=True)
        async def touch(self, command: NodeTouchCommand, commands: CommandGateway) -> NodeTouchedEvent:
            if command.touch:
                await commands.send(NodeTouchCommand(command.touch, command.node_id))
            return NodeTouchedEvent(command.node_id)

    async with make_bundle(components=[Node]) as bundle:
        with pytest.raises(WouldDeadlock, match="NODE_1"):
            await bundle.commands.send(NodeTouchCommand("NODE_1", "NODE_1"), timeout=5)
        with pytest.raises(WouldDeadlock, match="NODE_1"):
            await bundle.commands.send(NodeTouchCommand("NODE_1", "NODE_2"), timeout=5)
        await bundle.commands.send(NodeTouchCommand("NODE_1", ""), timeout=5)


async def test_a_service_that_keeps_a_query_gateway_may_not_use_it(make_bundle: MakeBundle) -> None:
    from shop import OrderFindQuery

    class AskCommand(ServiceCommand[None]):
        pass

    class AskService(Service):
        def __init__(self, queries: QueryGateway) -> None:
            self._queries = queries

        @command_handler
        async def ask(self, command: AskCommand) -> None:
            await self._queries.query(OrderFindQuery("ORD_1"))

    async with make_bundle(components=[*COMPONENTS, AskService]) as bundle:
        from evento import CapabilityError

        with pytest.raises(CapabilityError, match="may not send queries"):
            await bundle.commands.send(AskCommand())


async def test_an_event_with_wrong_types_is_not_stored(make_bundle: MakeBundle) -> None:
    class OddCommand(ServiceCommand[PaymentCapturedEvent]):
        pass

    class OddService(Service):
        @command_handler
        def odd(self, command: OddCommand) -> PaymentCapturedEvent:
            return PaymentCapturedEvent("ORD_1", "much")  # type: ignore[arg-type]

    async with make_bundle(components=[*COMPONENTS, OddService]) as bundle:
        with pytest.raises(PayloadError, match="amount"):
            await bundle.commands.send(OddCommand())
        assert (await bundle.commands.send_message(OrderPlaceCommand("ORD_1", "ann"))).position == 1


async def test_blocking_handlers_run_in_threads(make_bundle: MakeBundle) -> None:
    import threading

    threads: list[str] = []

    class ReportCommand(ServiceCommand[None]):
        pass

    class ReportService(Service):
        @command_handler(executor="threads")
        def report(self, command: ReportCommand) -> None:
            threads.append(threading.current_thread().name)

    async with make_bundle(components=[ReportService]) as bundle:
        await bundle.commands.send(ReportCommand())
    assert threads[0].startswith("evento-threads")
