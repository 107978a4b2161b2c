"""Tests of services and projections, and what they say when they fail."""

from __future__ import annotations

from typing import assert_type

import pytest
from kit import fails
from shop import (
    ItemAddCommand,
    ItemAddedEvent,
    Ledger,
    MailSendCommand,
    OrderFindQuery,
    OrderProjection,
    Orders,
    OrderSearchQuery,
    OrderView,
    PaymentCaptureCommand,
    PaymentCapturedEvent,
    PaymentService,
    TransferCommand,
    TransferService,
)

from evento import (
    CommandRejected,
    DefinitionError,
    HandlerError,
    HandlerNotFound,
    Metadata,
    NotFound,
    PayloadError,
    Query,
    QueryGateway,
    Service,
    ServiceCommand,
    command_handler,
    query_handler,
)
from evento.components import Projection
from evento.testing import ProjectionOutcome, ServiceOutcome, projection_test, service_test

CAPTURE = PaymentCaptureCommand("ORD_1", 12)


class TestServices:
    def test_the_event_of_a_command_under_its_lock(self) -> None:
        ledger = Ledger()
        outcome = service_test(PaymentService, injector={Ledger: ledger}).when(CAPTURE)

        outcome.expect(PaymentCapturedEvent("ORD_1", 12, token=1)).expect_commands()
        assert len(ledger.calls) == 1
        assert outcome.message is not None
        assert outcome.message.aggregate_id == "PAY_ORD_1"

    def test_no_event(self) -> None:
        ledger = Ledger()
        service_test(PaymentService(ledger)).when(MailSendCommand("hello")).expect(None)

        assert ledger.mails == ["hello"]

    async def test_inside_a_running_loop(self) -> None:
        test = service_test(PaymentService, injector={Ledger: Ledger()})

        test.when(CAPTURE).expect(PaymentCapturedEvent("ORD_1", 12, token=1))
        (await test.when_async(CAPTURE)).expect(PaymentCapturedEvent("ORD_1", 12, token=1))

    def test_another_event(self) -> None:
        test = service_test(PaymentService, injector={Ledger: Ledger()})

        with fails("PaymentService: another event was published", "when:\n    PaymentCapture", "+     token=1,"):
            test.when(CAPTURE).expect(PaymentCapturedEvent("ORD_1", 12))
        with fails("PaymentService: another event was published", "expected:\n    PaymentCaptured", "got:\n    None"):
            test.when(MailSendCommand("x")).expect(PaymentCapturedEvent("ORD_1", 12))  # type: ignore[arg-type]

    def test_an_error(self) -> None:
        outcome = service_test(PaymentService, injector={Ledger: Ledger()}).when(PaymentCaptureCommand("ORD_1", -1))

        outcome.expect_error(CommandRejected, match="negative", amount=-1)
        with fails("PaymentService: no error was raised", "got:\n    None"):
            service_test(PaymentService(Ledger())).when(MailSendCommand("x")).expect_error(CommandRejected)

    def test_commands_and_their_answers(self) -> None:
        added = {ItemAddCommand: lambda command: ItemAddedEvent(command.order_id, command.sku, command.quantity)}
        outcome = service_test(TransferService, answers=added).when(TransferCommand("A", "B", "tea"))

        outcome.expect(None).expect_commands(ItemAddCommand("A", "tea", -1), ItemAddCommand("B", "tea", 1))
        full = service_test(TransferService, answers={ItemAddCommand: CommandRejected("full")})
        full.when(TransferCommand("A", "B", "tea")).expect_error(CommandRejected).expect_commands(
            ItemAddCommand("A", "tea", -1)
        )

    def test_an_event_that_cannot_be_stored(self) -> None:
        service_test(Wrong).when(WrongCommand("type")).expect_error(PayloadError, match="amount")
        service_test(Wrong).when(WrongCommand("class")).expect_error(HandlerError, match="returned str")

    def test_metadata(self) -> None:
        service_test(Wrong).when(WrongCommand("user"), metadata={"user": "ann"}).expect(PaymentCapturedEvent("ann", 0))

    def test_what_it_does_not_handle(self) -> None:
        with pytest.raises(HandlerNotFound, match="TransferService does not handle MailSendCommand"):
            service_test(TransferService).when(MailSendCommand("x"))
        with pytest.raises(DefinitionError, match=r"is no Service: use projection_test\(\)"):
            service_test(OrderProjection)  # type: ignore[arg-type]

    def test_types_are_known(self) -> None:
        outcome = service_test(PaymentService(Ledger())).when(CAPTURE)

        assert_type(outcome, ServiceOutcome[PaymentCapturedEvent])


class TestProjections:
    @pytest.fixture
    def orders(self) -> Orders:
        orders = Orders()
        orders.rows["ORD_1"] = OrderView("ORD_1", "ann", 2)
        return orders

    def test_the_answer(self, orders: Orders) -> None:
        test = projection_test(OrderProjection, injector={Orders: orders})

        test.when(OrderFindQuery("ORD_1")).expect(OrderView("ORD_1", "ann", 2))
        test.when(OrderSearchQuery("a")).expect([OrderView("ORD_1", "ann", 2)])
        assert test.when(OrderFindQuery("ORD_1")).view.total == 2

    async def test_inside_a_running_loop(self, orders: Orders) -> None:
        test = projection_test(OrderProjection(orders))

        test.when(OrderSearchQuery("b")).expect([])
        (await test.when_async(OrderSearchQuery("b"))).expect([])

    def test_another_answer(self, orders: Orders) -> None:
        test = projection_test(OrderProjection(orders))

        with fails("OrderProjection: the answer is another one", "when:\n    OrderFindQuery", "-     customer='bob',"):
            test.when(OrderFindQuery("ORD_1")).expect(OrderView("ORD_1", "bob", 2))
        with fails("OrderProjection: no error was raised", "got:\n    OrderView("):
            test.when(OrderFindQuery("ORD_1")).expect_error(NotFound)

    def test_an_error(self, orders: Orders) -> None:
        outcome = projection_test(OrderProjection(orders)).when(OrderFindQuery("ORD_2"))

        with fails("OrderProjection: an error was raised", "got:\n    NotFound('there is no order ORD_2'"):
            outcome.expect(OrderView("ORD_2", "ann", 0))
        with fails("OrderProjection: there is no answer", "got:\n    NotFound("):
            _ = outcome.view
        outcome.expect_error(NotFound, order_id="ORD_2")

    def test_an_answer_that_the_query_does_not_allow(self) -> None:
        projection_test(Counting).when(CountQuery("wrong")).expect_error(PayloadError, match="answer of CountQuery")

    def test_queries_of_its_own(self) -> None:
        answers = {OrderSearchQuery: [OrderView("ORD_1", "ann", 2)] * 3}
        outcome = projection_test(Counting, answers=answers).when(CountQuery("ann"), metadata={"user": "ann"})

        outcome.expect(3)
        assert [message.payload for message in outcome.queries] == [OrderSearchQuery("ann")]

    def test_what_it_does_not_handle(self, orders: Orders) -> None:
        with pytest.raises(HandlerNotFound, match="OrderProjection does not handle CountQuery"):
            projection_test(OrderProjection(orders)).when(CountQuery("ann"))

    def test_types_are_known(self, orders: Orders) -> None:
        outcome = projection_test(OrderProjection(orders)).when(OrderSearchQuery())

        assert_type(outcome, ProjectionOutcome[list[OrderView]])
        assert_type(outcome.view, list[OrderView])


class WrongCommand(ServiceCommand[PaymentCapturedEvent]):
    way: str


class Wrong(Service):
    @command_handler
    def handle(self, command: WrongCommand, metadata: Metadata) -> PaymentCapturedEvent:
        match command.way:
            case "type":
                return PaymentCapturedEvent("ORD_1", "twelve")  # type: ignore[arg-type]
            case "class":
                return "event"  # type: ignore[return-value]
        return PaymentCapturedEvent(metadata["user"], 0)


class CountQuery(Query[int]):
    customer: str


class Counting(Projection):
    @query_handler
    async def count(self, query: CountQuery, queries: QueryGateway) -> int:
        if query.customer == "wrong":
            return "many"  # type: ignore[return-value]
        return len(await queries.query(OrderSearchQuery(query.customer)))
