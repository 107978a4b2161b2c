"""What a test of an aggregate can say, what it says when it fails, and which rules it keeps by itself."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime, timezone
from typing import Any, assert_type

import pytest
from kit import fails
from shop import (
    ItemAddCommand,
    ItemAddedEvent,
    OrderAggregate,
    OrderCancelCommand,
    OrderCancelledEvent,
    OrderPlaceCommand,
    OrderPlacedEvent,
    OrderProjector,
    OrderState,
    PaymentCapturedEvent,
)
from troubled import (
    AgainCommand,
    AgainEvent,
    KeptEvent,
    LimitCommand,
    Limited,
    LimitedEvent,
    NotedEvent,
    NumberCommand,
    NumberedEvent,
    Photographed,
    SendCommand,
    Sender,
    SentEvent,
    StartCommand,
    ThreadedCommand,
    TroubleCommand,
    Troubled,
    TroubledState,
)

from evento import (
    AggregateAlreadyInitialized,
    AggregateDeleted,
    AggregateId,
    AggregateNotInitialized,
    CommandRejected,
    DefinitionError,
    DomainCommand,
    DomainEvent,
    HandlerError,
    HandlerNotFound,
    PayloadError,
    RequestTimeout,
)
from evento.testing import AggregateOutcome, AggregateTest, aggregate_test, event_message

PLACED = OrderPlacedEvent("ORD_1", "ann")
CANCEL = OrderCancelCommand("ORD_1")
CANCELLED = OrderCancelledEvent("ORD_1")
orders = aggregate_test(OrderAggregate)


class TestExpect:
    def test_the_event(self) -> None:
        orders.given(PLACED).when(CANCEL).expect(CANCELLED)

    def test_the_event_of_an_async_handler(self) -> None:
        orders.given(PLACED).when(ItemAddCommand("ORD_1", "tea", 2)).expect(ItemAddedEvent("ORD_1", "tea", 2))

    def test_another_event_is_shown_with_its_difference(self) -> None:
        with pytest.raises(AssertionError) as caught:
            orders.given(PLACED).when(CANCEL).expect(OrderCancelledEvent("ORD_2"))

        assert str(caught.value) == (
            "OrderAggregate: another event was decided\n"
            "given:\n"
            "    OrderPlacedEvent(order_id='ORD_1', customer='ann')\n"
            "when:\n"
            "    OrderCancelCommand(order_id='ORD_1')\n"
            "expected:\n"
            "    OrderCancelledEvent(order_id='ORD_2')\n"
            "got:\n"
            "    OrderCancelledEvent(order_id='ORD_1')\n"
            "difference (- expected, + got):\n"
            "      OrderCancelledEvent(\n"
            "    -     order_id='ORD_2',\n"
            "    +     order_id='ORD_1',\n"
            "      )"
        )

    def test_a_context_that_was_not_expected_is_another_event(self) -> None:
        command = OrderPlaceCommand("ORD_1", "ann")

        orders.when(command, metadata={"context": "eu"}).expect(OrderPlacedEvent("ORD_1", "ann", context="eu"))
        with fails("OrderAggregate: another event", "+     context='eu',"):
            orders.when(command, metadata={"context": "eu"}).expect(PLACED)

    def test_an_error_instead_is_shown_as_the_cause(self) -> None:
        with pytest.raises(AssertionError, match="an error was raised") as caught:
            orders.given(PLACED).when(ItemAddCommand("ORD_1", "tea", 101)).expect(ItemAddedEvent("ORD_1", "tea", 101))

        assert isinstance(caught.value.__cause__, CommandRejected)
        assert "CommandRejected('an order has at most 100 items', total=0)" in str(caught.value)

    def test_an_expected_event_is_compared_as_it_would_be_stored(self) -> None:
        with pytest.raises(PayloadError, match="customer"):
            orders.when(OrderPlaceCommand("ORD_1", "ann")).expect(OrderPlacedEvent("ORD_1", 7))  # type: ignore[arg-type]


class TestExpectError:
    def test_by_class_message_and_data(self) -> None:
        outcome = orders.given(PLACED).when(ItemAddCommand("ORD_1", "tea", 101))

        outcome.expect_error(CommandRejected).expect_error(CommandRejected, match="at most 100", total=0)
        assert isinstance(outcome.error, CommandRejected)

    def test_the_rules_of_the_life_cycle(self) -> None:
        place = OrderPlaceCommand("ORD_1", "ann")

        orders.given().when(CANCEL).expect_error(AggregateNotInitialized, aggregate_id="ORD_1")
        orders.given(PLACED).when(place).expect_error(AggregateAlreadyInitialized)
        orders.given(PLACED, CANCELLED).when(CANCEL).expect_error(AggregateDeleted)

    def test_an_event_instead(self) -> None:
        with fails("OrderAggregate: no error was raised", "expected:\n    CommandRejected", "got:\n    OrderCancelled"):
            orders.given(PLACED).when(CANCEL).expect_error(CommandRejected)

    @pytest.mark.parametrize(
        ("expectation", "expected"),
        [
            ((AggregateDeleted, None, {}), "AggregateDeleted"),
            ((CommandRejected, "no order", {}), "CommandRejected with a message that matches 'no order'"),
            ((CommandRejected, None, {"total": 1}), "CommandRejected with total=1"),
            ((CommandRejected, "at most", {"x": 1}), "CommandRejected with a message that matches 'at most' and x=1"),
        ],
    )
    def test_another_error(
        self, expectation: tuple[type[Exception], str | None, dict[str, Any]], expected: str
    ) -> None:
        error, match, data = expectation
        outcome = orders.given(PLACED).when(ItemAddCommand("ORD_1", "tea", 101))

        with fails("OrderAggregate: another error was raised", f"expected:\n    {expected}\n", "got:\n    CommandRej"):
            outcome.expect_error(error, match, **data)

    def test_an_error_of_the_users_own_is_itself_and_what_the_sender_sees(self) -> None:
        outcome = aggregate_test(Troubled).when(StartCommand("T_1", "fail"))

        outcome.expect_error(ZeroDivisionError).expect_error(HandlerError, match="division")

    def test_a_command_that_cannot_be_sent(self) -> None:
        orders.given(PLACED).when(OrderCancelCommand(1)).expect_error(PayloadError)  # type: ignore[arg-type]
        orders.given(PLACED).when(OrderCancelCommand("")).expect_error(PayloadError, match="aggregate id")

    def test_a_handler_that_does_not_end(self) -> None:
        test = aggregate_test(Troubled, timeout=0.01)

        test.when(StartCommand("T_1", "wait")).expect_error(RequestTimeout)


class TestExpectState:
    def test_after_the_event(self) -> None:
        outcome = orders.given(PLACED, ItemAddedEvent("ORD_1", "tea", 2)).when(ItemAddCommand("ORD_1", "tea", 3))

        outcome.expect_state(OrderState(customer="ann", items={"tea": 5}, total=5))

    def test_another_state(self) -> None:
        with fails("OrderAggregate: the state is another one", "-     total=5,", "+     total=3,"):
            orders.given(PLACED).when(ItemAddCommand("ORD_1", "tea", 3)).expect_state(
                OrderState(customer="ann", items={"tea": 3}, total=5)
            )

    def test_before_an_expected_error(self) -> None:
        outcome = orders.given(PLACED).when(ItemAddCommand("ORD_1", "tea", 101))

        outcome.expect_error(CommandRejected).expect_state(OrderState(customer="ann"))

    def test_an_error_that_nothing_has_expected_fails_first(self) -> None:
        with fails("OrderAggregate: an error was raised", "CommandRejected"):
            orders.given(PLACED).when(ItemAddCommand("ORD_1", "tea", 101)).expect_state(OrderState(customer="ann"))

    def test_there_is_none_before_the_first_event(self) -> None:
        outcome = orders.when(CANCEL).expect_error(AggregateNotInitialized)

        assert outcome.state is None
        with fails("OrderAggregate: there is no state", "got:\n    no events"):
            outcome.expect_state(OrderState())

    def test_deleted(self) -> None:
        orders.given(PLACED).when(CANCEL).expect(CANCELLED).expect_deleted()
        with fails("OrderAggregate: the aggregate is not deleted", "got:\n    OrderState("):
            orders.given(PLACED).when(ItemAddCommand("ORD_1", "tea", 3)).expect_deleted()


class TestGiven:
    def test_nothing(self) -> None:
        orders.given().when(OrderPlaceCommand("ORD_1", "ann")).expect(PLACED)

    def test_each_step_returns_a_test_of_its_own(self) -> None:
        placed = orders.given(PLACED)
        placed.given(CANCELLED).when(CANCEL).expect_error(AggregateDeleted)

        placed.when(CANCEL).expect(CANCELLED)
        placed.when(CANCEL).expect(CANCELLED)
        orders.when(CANCEL).expect_error(AggregateNotInitialized)

    def test_commands(self) -> None:
        test = orders.given_commands(OrderPlaceCommand("ORD_1", "ann"), OrderPlaceCommand("ORD_2", "bob"))
        outcome = test.given(ItemAddedEvent("ORD_1", "tea", 2)).when(ItemAddCommand("ORD_1", "tea", 3))

        outcome.expect(ItemAddedEvent("ORD_1", "tea", 3))
        outcome.expect_state(OrderState(customer="ann", items={"tea": 5}, total=5))
        assert outcome.message.version == 3

    def test_a_command_that_is_rejected(self) -> None:
        with fails(
            "OrderAggregate: the given OrderPlaceCommand(order_id='ORD_1', customer='') was not accepted",
            "got:\n    CommandRejected('an order needs a customer', field='customer')",
        ):
            orders.given_commands(OrderPlaceCommand("ORD_1", "")).when(CANCEL)

    def test_the_envelope_of_an_event(self) -> None:
        noon = datetime(2030, 1, 1, 12, tzinfo=timezone.utc)
        given = event_message(KeptEvent("T_1"), metadata={"user": "ann"}, timestamp=noon, aggregate_id="T_1")
        outcome = aggregate_test(Troubled).given(given).when(TroubleCommand("T_1", "fine"))

        outcome.expect_state(TroubledState(notes=[f"ann {noon.isoformat()}"]))

    def test_an_event_of_another_aggregate(self) -> None:
        with fails("OrderAggregate: a given event belongs to another aggregate", "'ORD_1'", "OrderPlacedEvent of 'X'"):
            orders.given(event_message(PLACED, aggregate_id="X")).when(CANCEL)

    def test_only_domain_events(self) -> None:
        with pytest.raises(TypeError, match="no domain event"):
            orders.given(PaymentCapturedEvent("ORD_1", 1))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="no event"):
            orders.given(CANCEL)  # type: ignore[arg-type]

    def test_an_event_that_cannot_be_stored(self) -> None:
        with pytest.raises(PayloadError, match="customer"):
            orders.given(OrderPlacedEvent("ORD_1", None))  # type: ignore[arg-type]


class TestWhen:
    def test_metadata_and_time_reach_the_handler(self) -> None:
        noon = datetime(2030, 1, 1, 12, tzinfo=timezone.utc)
        outcome = aggregate_test(Troubled).when(
            StartCommand("T_1", "metadata"), metadata={"user": "ann"}, timestamp=noon
        )

        outcome.expect(NotedEvent("T_1", f"ann {noon.isoformat()}"))
        assert outcome.message.metadata == {"user": "ann"}

    def test_a_time_without_a_zone(self) -> None:
        with pytest.raises(ValueError, match="time zone"):
            orders.when(CANCEL, timestamp=datetime(2030, 1, 1)).expect_error(Exception)

    def test_a_command_of_another_aggregate(self) -> None:
        with pytest.raises(HandlerNotFound, match="OrderAggregate does not handle TroubleCommand, only ItemAddCommand"):
            orders.when(TroubleCommand("T_1", "note"))

    def test_outcome_gives_the_event_or_tells_why_not(self) -> None:
        done, rejected = orders.given(PLACED).when(CANCEL), orders.when(CANCEL)

        assert (done.event, done.message.version, done.error) == (CANCELLED, 2, None)
        with fails("OrderAggregate: there is no event", "AggregateNotInitialized"):
            _ = rejected.event

    def test_an_error_is_logged_for_those_who_look_elsewhere(self, caplog: pytest.LogCaptureFixture) -> None:
        orders.when(CANCEL)

        assert "OrderAggregate raised AggregateNotInitialized" in caplog.text

    def test_handlers_with_an_executor_run(self) -> None:
        aggregate_test(Troubled).given(KeptEvent("T_1")).when(ThreadedCommand("T_1")).expect(KeptEvent("T_1"))

    def test_no_thread_is_left(self) -> None:
        orders.given(PLACED).when(CANCEL).expect(CANCELLED)

        assert [thread.name for thread in threading.enumerate() if "evento" in thread.name] == []


class TestInsideARunningLoop:
    async def test_the_chain_works_as_it_is(self) -> None:
        orders.given(PLACED).when(ItemAddCommand("ORD_1", "tea", 2)).expect(ItemAddedEvent("ORD_1", "tea", 2))

    async def test_handlers_run_in_the_tests_own_loop_when_awaited(self) -> None:
        outcome = await aggregate_test(Troubled, injector={object: asyncio.get_running_loop()}).when_async(
            StartCommand("T_1", "own loop")
        )

        outcome.expect(KeptEvent("T_1"))


class TestCommandsOfAnAggregate:
    def test_are_recorded_in_order(self) -> None:
        outcome = aggregate_test(Sender).when(SendCommand("S_1", 2), metadata={"user": "ann"})

        outcome.expect(SentEvent("S_1", [None, None])).expect_commands(NumberCommand(1), NumberCommand(2))
        assert [message.metadata for message in outcome.commands] == [{"user": "ann"}] * 2

    def test_others(self) -> None:
        outcome = aggregate_test(Sender).when(SendCommand("S_1", 1))

        with fails("Sender: other commands were sent", "expected:\n    no commands\n", "[NumberCommand(number=1)]"):
            outcome.expect_commands()
        with fails("Sender: other commands were sent", "-         number=2,", "+         number=1,"):
            outcome.expect_commands(NumberCommand(2))

    def test_those_of_given_commands_are_not(self) -> None:
        test = aggregate_test(Sender).given_commands(SendCommand("S_1", 2))

        test.when(AgainCommand("S_1")).expect(AgainEvent("S_1")).expect_commands()

    def test_an_answer(self) -> None:
        test = aggregate_test(Sender, answers={NumberCommand: NumberedEvent(7)})

        test.when(SendCommand("S_1", 1)).expect(SentEvent("S_1", [7]))

    def test_answers_of_a_function(self) -> None:
        async def answer(command: NumberCommand) -> NumberedEvent:
            await asyncio.sleep(0)
            return NumberedEvent(command.number * 10)

        plain = aggregate_test(Sender, answers={NumberCommand: lambda command: NumberedEvent(command.number * 10)})
        awaited = aggregate_test(Sender, answers={NumberCommand: answer})

        plain.when(SendCommand("S_1", 2)).expect(SentEvent("S_1", [10, 20]))
        awaited.when(SendCommand("S_1", 2)).expect(SentEvent("S_1", [10, 20]))

    @pytest.mark.parametrize("error", [CommandRejected("no", why="full"), CommandRejected])
    def test_an_error_as_answer_arrives_as_from_another_bundle(self, error: Any) -> None:
        outcome = aggregate_test(Sender, answers={NumberCommand: error}).when(SendCommand("S_1", 1))

        outcome.expect_error(CommandRejected).expect_commands(NumberCommand(1))

    def test_an_answer_that_asserts_fails_the_test(self) -> None:
        def answer(command: NumberCommand) -> None:
            raise AssertionError("not this number")

        with pytest.raises(AssertionError, match="not this number"):
            aggregate_test(Sender, answers={NumberCommand: answer}).when(SendCommand("S_1", 1))

    def test_an_answer_of_the_wrong_class_fails_the_test(self) -> None:
        with fails("answers={NumberCommand: ...}: ", "is no answer to this command, which gives NumberedEvent | None"):
            aggregate_test(Sender, answers={NumberCommand: CANCELLED}).when(SendCommand("S_1", 1))

    def test_answers_are_for_commands_and_queries(self) -> None:
        with pytest.raises(TypeError, match="SentEvent"):
            aggregate_test(Sender, answers={SentEvent: 1})


class TestMaking:
    def test_the_injector_gives_what_the_constructor_wants(self) -> None:
        aggregate_test(Limited, injector={int: 3}).when(LimitCommand("L_1")).expect(LimitedEvent("L_1", 3))
        aggregate_test(Limited, injector=lambda hint: 4).when(LimitCommand("L_1")).expect(LimitedEvent("L_1", 4))

    def test_an_instance(self) -> None:
        aggregate_test(Limited(5)).when(LimitCommand("L_1")).expect(LimitedEvent("L_1", 5))

    def test_what_cannot_be_made(self) -> None:
        with pytest.raises(DefinitionError, match="nothing provides the constructor's parameter 'limit'"):
            aggregate_test(Limited)

    def test_other_components(self) -> None:
        with pytest.raises(DefinitionError, match=r"is no Aggregate: use projector_test\(\)"):
            aggregate_test(OrderProjector)  # type: ignore[arg-type]


class TestRulesThatAlwaysHold:
    @pytest.mark.parametrize("way", ["change", "change and fail"])
    def test_a_command_handler_leaves_the_state_alone(self, way: str) -> None:
        with fails(
            "Troubled: decide has changed the state",
            "given:\n    KeptEvent(trouble_id='T_1')",
            "got:\n    TroubledState(notes=['changed'])",
        ):
            aggregate_test(Troubled).given(KeptEvent("T_1")).when(TroubleCommand("T_1", way))

    def test_events_survive_json(self) -> None:
        with fails("Troubled: start has returned an event that cannot be stored", "got:\n    PayloadError("):
            aggregate_test(Troubled).when(StartCommand("T_1", "wrong type"))

    def test_a_command_that_is_decided_with_a_payload_error_may_be_expected(self) -> None:
        aggregate_test(Troubled).when(StartCommand("T_1", "payload error")).expect_error(PayloadError, match="mine")

    @pytest.mark.parametrize("way", ["clock", "self"])
    def test_folding_depends_on_the_events_alone(self, way: str) -> None:
        with fails("Troubled: folding the same events again gives another state"):
            aggregate_test(Troubled).when(StartCommand("T_1", way))

    def test_folding_is_checked_on_what_is_given_too(self) -> None:
        with fails("Troubled: folding the same events again gives another state", "when:\n    TroubleCommand("):
            aggregate_test(Troubled).given(NotedEvent("T_1", "clock")).when(TroubleCommand("T_1", "fail"))

    def test_folding_that_works_once(self) -> None:
        with fails("Troubled: folding the same events again fails", "got:\n    LookupError('folded already')"):
            aggregate_test(Troubled).when(StartCommand("T_1", "once"))

    def test_a_handler_that_cannot_fold_is_an_error(self) -> None:
        outcome = aggregate_test(Troubled).given(NotedEvent("T_1", "raise")).when(TroubleCommand("T_1", "fine"))

        outcome.expect_error(LookupError)

    def test_with_snapshots_on_the_state_survives_json(self) -> None:
        with fails("Photographed: snapshots are on, but the state does not survive JSON"):
            aggregate_test(Photographed).when(StartCommand("T_1", "tuple"))
        with fails("Photographed: snapshots are on, but the state does not survive JSON", "got:\n    TypeError("):
            aggregate_test(Photographed).when(StartCommand("T_1", "object"))

    def test_without_snapshots_it_need_not(self) -> None:
        aggregate_test(Troubled).when(StartCommand("T_1", "tuple")).expect(NotedEvent("T_1", "tuple"))


def test_types_are_known() -> None:
    class OrderPlainCommand(DomainCommand):
        order_id: AggregateId

    assert_type(orders, AggregateTest[OrderState])

    def typed() -> None:
        assert_type(orders.when(CANCEL), AggregateOutcome[OrderState, OrderCancelledEvent])
        assert_type(orders.when(CANCEL).event, OrderCancelledEvent)
        assert_type(orders.when(CANCEL).state, OrderState | None)
        assert_type(orders.when(OrderPlainCommand("ORD_1")).event, DomainEvent)
