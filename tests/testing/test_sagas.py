"""Tests of sagas, and what they say when they fail."""

from __future__ import annotations

from datetime import datetime, timezone
from enum import Enum
from typing import Any, assert_type
from uuid import UUID

import pytest
from kit import fails
from shop import (
    MailSendCommand,
    OrderCancelledEvent,
    OrderFindQuery,
    OrderPlacedEvent,
    OrderProjector,
    OrderView,
    PaymentCaptureCommand,
    PaymentCapturedEvent,
)

from evento import (
    CommandGateway,
    CommandRejected,
    DefinitionError,
    DomainEvent,
    EventMessage,
    Metadata,
    QueryGateway,
    RequestTimeout,
    Saga,
    SagaState,
    ServiceEvent,
    saga_event_handler,
)
from evento.testing import SagaOutcome, SagaTest, event_message, saga_test

PLACED = OrderPlacedEvent("ORD_1", "ann")
PAID = PaymentCapturedEvent("ORD_1", 12)
CANCELLED = OrderCancelledEvent("ORD_1")


class PaymentState(SagaState):
    customer: str = ""
    attempts: int = 0


class PaymentSaga(Saga[PaymentState], version=1):
    """Asks for the money when an order is placed, twice at most, and thanks for it."""

    @saga_event_handler(init=True, association_property="order_id")
    async def on_placed(self, event: OrderPlacedEvent, commands: CommandGateway) -> PaymentState:
        state = PaymentState(customer=event.customer, attempts=1)
        state.set_association("order_id", event.order_id)
        await commands.send(PaymentCaptureCommand(event.order_id, 12))
        return state

    @saga_event_handler(association_property="order_id")
    async def on_paid(
        self, event: PaymentCapturedEvent, state: PaymentState, commands: CommandGateway, queries: QueryGateway
    ) -> None:
        state.attempts += 1
        if event.amount < 12:
            await commands.send(PaymentCaptureCommand(event.order_id, 12 - event.amount))
            return
        view = await queries.query(OrderFindQuery(event.order_id))
        await commands.send(MailSendCommand(f"thanks, {view.customer}"))
        state.end()

    @saga_event_handler(association_property="order_id")
    def on_cancelled(self, event: OrderCancelledEvent, state: PaymentState) -> PaymentState:
        return PaymentState(customer="nobody", associations=state.associations)


payments = saga_test(PaymentSaga, answers={OrderFindQuery: lambda query: OrderView(query.order_id, "ann", 0)})


class TestExpect:
    def test_commands_and_state_of_a_saga_that_begins(self) -> None:
        outcome = payments.when(event_message(PLACED, metadata={"user": "ann"}))

        outcome.expect_commands(PaymentCaptureCommand("ORD_1", 12))
        outcome.expect_state(PaymentState(customer="ann", attempts=1, associations={"order_id": "ORD_1"}))
        assert outcome.commands[0].metadata == {"user": "ann"}

    def test_commands_of_given_events_are_not_counted(self) -> None:
        payments.given(PLACED).when(PaymentCapturedEvent("ORD_1", 5)).expect_commands(PaymentCaptureCommand("ORD_1", 7))

    def test_the_end(self) -> None:
        outcome = payments.given(PLACED).when(PAID)

        outcome.expect_commands(MailSendCommand("thanks, ann")).expect_ended()
        assert outcome.state is not None
        assert outcome.state.attempts == 2
        assert [message.payload for message in outcome.queries] == [OrderFindQuery("ORD_1")]

    def test_no_saga(self) -> None:
        payments.when(PAID).expect_no_saga().expect_ignored().expect_commands()
        payments.given(PLACED, PAID).when(PAID).expect_no_saga()
        payments.given(PLACED).when(PaymentCapturedEvent("ORD_2", 12)).expect_no_saga()
        payments.given(PLACED).when(ValueEvent("ORD_1")).expect_no_saga()

    async def test_inside_a_running_loop(self) -> None:
        payments.given(PLACED).when(PAID).expect_ended()
        (await payments.given(PLACED).when_async(PAID)).expect_ended()

    def test_other_commands(self) -> None:
        with fails(
            "PaymentSaga: other commands were sent",
            "given:\n    nothing\nwhen:\n    OrderPlacedEvent(order_id='ORD_1', customer='ann')\n",
            "-         amount=13,",
            "+         amount=12,",
        ):
            payments.when(PLACED).expect_commands(PaymentCaptureCommand("ORD_1", 13))

    def test_another_state(self) -> None:
        with fails("PaymentSaga: the state is another one", "-     customer='bob',", "+     customer='ann',"):
            payments.when(PLACED).expect_state(
                PaymentState(customer="bob", attempts=1, associations={"order_id": "ORD_1"})
            )
        with fails("PaymentSaga: there is no saga for the event", "got:\n    an ignored event: it finds no saga"):
            payments.when(PAID).expect_state(PaymentState())

    def test_not_the_end(self) -> None:
        with fails("PaymentSaga: the saga has not ended", "got:\n    PaymentState(customer='ann', attempts=1,"):
            payments.when(PLACED).expect_ended()
        with fails("PaymentSaga: the saga has not ended", "got:\n    an ignored event"):
            payments.when(PAID).expect_ended()

    def test_a_saga_after_all(self) -> None:
        with fails("PaymentSaga: there is a saga for the event", "expected:\n    no saga for the event"):
            payments.when(PLACED).expect_no_saga()

    def test_an_error(self) -> None:
        test = saga_test(PaymentSaga, answers={PaymentCaptureCommand: RequestTimeout("no answer")})
        outcome = test.when(PLACED)

        outcome.expect_error(RequestTimeout, match="no answer").expect_commands(PaymentCaptureCommand("ORD_1", 12))
        with fails("PaymentSaga: an error was raised", "got:\n    RequestTimeout('no answer')"):
            test.when(PLACED).expect_no_saga()
        with fails("PaymentSaga: the event was handled", "got:\n    RequestTimeout('no answer')"):
            test.when(PLACED).expect_ignored()
        with fails("PaymentSaga: the given OrderPlacedEvent", "RequestTimeout('no answer')"):
            test.given(PLACED).when(PAID)

    def test_a_handler_that_fails_leaves_the_state_as_it_was(self) -> None:
        def refuse(command: MailSendCommand) -> None:
            raise CommandRejected("no mail")

        outcome = saga_test(PaymentSaga, answers={MailSendCommand: refuse, OrderFindQuery: OrderView("x", "x", 0)})
        failed = outcome.given(PLACED).when(PAID).expect_error(CommandRejected)

        assert failed.state is None


class TestFinding:
    def test_each_instance_has_its_own_state(self) -> None:
        test = payments.given(PLACED, OrderPlacedEvent("ORD_2", "bob"), PaymentCapturedEvent("ORD_2", 5))

        test.when(PaymentCapturedEvent("ORD_1", 3)).expect_state(
            PaymentState(customer="ann", attempts=2, associations={"order_id": "ORD_1"})
        )
        test.when(PaymentCapturedEvent("ORD_2", 3)).expect_state(
            PaymentState(customer="bob", attempts=3, associations={"order_id": "ORD_2"})
        )

    def test_a_state_that_is_returned_takes_the_place_of_the_old_one(self) -> None:
        state = PaymentState(customer="nobody", associations={"order_id": "ORD_1"})

        payments.given(PLACED).when(CANCELLED).expect_state(state)
        payments.given(PLACED, CANCELLED).when(CANCELLED).expect_state(state)

    @pytest.mark.parametrize("value", ["1", 1, True, "true"])
    def test_an_association_may_be_any_scalar(self, value: Any) -> None:
        test = saga_test(Anything).given(BegunEvent(value, {"value": value}))

        test.when(ValueEvent(value)).expect_state(AnythingState(associations={"value": value}, seen=1))
        for other in ("1", 1, True, "true"):
            if (type(other), other) != (type(value), value):
                test.when(ValueEvent(other)).expect_no_saga()

    def test_an_association_is_compared_as_it_is_kept(self) -> None:
        number = UUID(int=7)
        test = saga_test(Anything).given(BegunEvent("x", {"number": str(number), "colour": "red"}))

        test.when(NumberEvent(number)).expect_state(
            AnythingState(associations={"number": str(number), "colour": "red"}, seen=1)
        )
        test.when(ColourEvent(Colour.RED)).expect_ended()
        test.when(ColourEvent(None)).expect_no_saga()

    def test_associations_come_and_go(self) -> None:
        test = saga_test(Anything).given(BegunEvent("x", {"value": "x"}))

        test.given(MovedEvent("x", "y")).when(ValueEvent("y")).expect_state(
            AnythingState(associations={"value": "y"}, seen=1)
        )
        test.given(MovedEvent("x", "y")).when(ValueEvent("x")).expect_no_saga()

    def test_an_event_that_begins_finds_an_instance_that_is_there(self) -> None:
        test = saga_test(Anything).given(BegunEvent("x", {"value": "x"}))

        test.when(BegunEvent("x", {"value": "x"})).expect_state(AnythingState(associations={"value": "x"}, seen=10))


class TestRulesThatAlwaysHold:
    def test_a_saga_that_goes_on_can_be_found(self) -> None:
        with fails(
            "Anything: the state is refused: Anything.on_begun has left the saga without an association",
            "got:\n    AnythingState(",
        ):
            saga_test(Anything).when(BegunEvent("x", {}))

    def test_no_two_instances_have_one_association(self) -> None:
        with fails(
            'Anything: the state is refused: Anything.on_begun has set the association colour="red", which another',
            "got:\n    AnythingState(",
        ):
            saga_test(Anything).given(BegunEvent("x", {"value": "x", "colour": "red"})).when(
                BegunEvent("y", {"value": "y", "colour": "red"})
            )

    def test_the_state_survives_json(self) -> None:
        with fails("Anything: the state is refused: state of Anything.on_begun: a value does not survive JSON"):
            saga_test(Anything).when(BegunEvent("infinity", {"value": 1}))
        with fails("Anything: the state is refused: state of Anything.on_begun", "got:\n    AnythingState("):
            saga_test(Anything).when(BegunEvent("object", {"value": 1}))

    def test_the_state_is_what_is_kept_of_it(self) -> None:
        outcome = saga_test(Anything).when(BegunEvent("tuple", {"value": 1}))

        assert outcome.state is not None
        assert outcome.state.thing == ["a"]

    def test_a_handler_returns_the_state(self) -> None:
        with fails("Anything: the state is refused: Anything.on_begun has returned 'a state': return a AnythingState"):
            saga_test(Anything).when(BegunEvent("wrong", {}))

    def test_what_begins_a_saga_returns_its_state(self) -> None:
        with fails("Anything: the state is refused: Anything.on_begun has begun a saga, but returned no state"):
            saga_test(Anything).when(BegunEvent("nothing", {}))

    def test_given_events_are_no_exception(self) -> None:
        with fails("Anything: the state is refused", "given:\n    BegunEvent(value='x', associations={})\nwhen:"):
            saga_test(Anything).given(BegunEvent("x", {})).when(ValueEvent("x"))


class TestMaking:
    def test_an_instance(self) -> None:
        saga_test(PaymentSaga()).when(PLACED).expect()

    def test_other_components(self) -> None:
        with pytest.raises(DefinitionError, match=r"is no Saga: use projector_test\(\)"):
            saga_test(OrderProjector)  # type: ignore[arg-type]

    def test_what_is_injected(self) -> None:
        noon = datetime(2030, 1, 1, 12, tzinfo=timezone.utc)
        given = BegunEvent("x", {"value": 1})
        event = event_message(StampedEvent(1), metadata={"user": "ann"}, timestamp=noon)

        saga_test(Anything).given(given).when(event).expect_commands(MailSendCommand(f"ann {noon.isoformat()} 2"))

    def test_types_are_known(self) -> None:
        assert_type(payments, SagaTest[PaymentState])
        assert_type(payments.when(PLACED).expect(), SagaOutcome[PaymentState])
        assert_type(payments.when(PLACED).state, PaymentState | None)


class Colour(Enum):
    RED = "red"


class BegunEvent(DomainEvent):
    value: str | int | bool
    associations: dict[str, str | int | bool]


class ValueEvent(DomainEvent):
    value: str | int | bool


class MovedEvent(DomainEvent):
    value: str
    to: str


class NumberEvent(ServiceEvent):
    number: UUID


class ColourEvent(ServiceEvent):
    colour: Colour | None


class StampedEvent(DomainEvent):
    value: int


class AnythingState(SagaState):
    seen: int = 0
    thing: Any = None


class Anything(Saga[AnythingState], version=1):
    """Begins with whatever associations it is told."""

    @saga_event_handler(init=True, association_property="value")
    def on_begun(self, event: BegunEvent, state: AnythingState | None) -> AnythingState | None:
        if state is not None:
            state.seen += 10
            return None
        things: dict[Any, Any] = {"tuple": ("a",), "object": object, "infinity": float("inf")}
        match event.value:
            case "nothing":
                return None
            case "wrong":
                return "a state"  # type: ignore[return-value]
            case value:
                return AnythingState(associations=dict(event.associations), thing=things.get(value))

    @saga_event_handler(association_property="value")
    def on_value(self, event: ValueEvent, state: AnythingState) -> None:
        state.seen += 1

    @saga_event_handler(association_property="number")
    def on_number(self, event: NumberEvent, state: AnythingState) -> None:
        state.seen += 1

    @saga_event_handler(association_property="colour")
    def on_colour(self, event: ColourEvent, state: AnythingState) -> None:
        state.end()

    @saga_event_handler(association_property="value")
    def on_moved(self, event: MovedEvent, state: AnythingState) -> None:
        state.unset_association("value")
        state.set_association("value", event.to)

    @saga_event_handler(association_property="value")
    async def on_stamped(
        self,
        event: StampedEvent,
        state: AnythingState,
        metadata: Metadata,
        now: datetime,
        message: EventMessage[StampedEvent],
        commands: CommandGateway,
    ) -> None:
        await commands.send(MailSendCommand(f"{metadata['user']} {now.isoformat()} {message.position}"))
