"""Tests of projectors and observers, and what they say when they fail."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, assert_type

import pytest
from kit import fails
from shop import (
    ItemAddedEvent,
    MailSendCommand,
    OrderCancelledEvent,
    OrderFindQuery,
    OrderPlacedEvent,
    OrderProjector,
    Orders,
    OrderView,
    PaymentCaptureCommand,
    PaymentCapturedEvent,
)
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine

from evento import (
    CommandGateway,
    CommandRejected,
    DefinitionError,
    EventMessage,
    HandlerNotFound,
    Metadata,
    NotFound,
    Observer,
    PayloadError,
    Projector,
    ProjectorStatus,
    QueryGateway,
    event_handler,
)
from evento.testing import EventOutcome, ProjectorTest, event_message, observer_test, projector_test

PLACED = OrderPlacedEvent("ORD_1", "ann")
ADDED = ItemAddedEvent("ORD_1", "tea", 2)


@pytest.fixture
def orders() -> Orders:
    return Orders()


@pytest.fixture
def test(orders: Orders) -> ProjectorTest:
    return projector_test(OrderProjector, injector={Orders: orders})


class TestExpect:
    def test_a_look_at_the_read_model(self, test: ProjectorTest, orders: Orders) -> None:
        outcome = test.given(PLACED).when(ADDED)

        outcome.expect(lambda: orders.rows["ORD_1"].total == 2)
        outcome.expect(lambda: orders.rows["ORD_1"], OrderView("ORD_1", "ann", 2)).expect()

    async def test_inside_a_running_loop(self, test: ProjectorTest, orders: Orders) -> None:
        test.given(PLACED).when(ADDED).expect(lambda: orders.rows["ORD_1"].total, 2)

    def test_an_async_look_or_something_to_await(self, test: ProjectorTest, orders: Orders) -> None:
        async def total() -> int:
            await asyncio.sleep(0)
            return orders.rows["ORD_1"].total

        test.given(PLACED).when(ADDED).expect(total, 2).expect(total(), 2)

    def test_something_else_is_shown(self, test: ProjectorTest, orders: Orders) -> None:
        with fails("OrderProjector: the check found something else", "expected:\n    3\ngot:\n    2"):
            test.given(PLACED).when(ADDED).expect(lambda: orders.rows["ORD_1"].total, 3)
        with fails("OrderProjector: the check found something else", "-     total=3,", "+     total=0,"):
            test.when(PLACED).expect(lambda: orders.rows["ORD_1"], OrderView("ORD_1", "ann", 3))

    def test_something_false(self, test: ProjectorTest, orders: Orders) -> None:
        with fails("OrderProjector: the check failed", "expected:\n    something true\ngot:\n    False"):
            test.when(PLACED).expect(lambda: "ORD_2" in orders.rows)

    def test_an_assertion_of_its_own_gets_the_story_as_a_note(self, test: ProjectorTest, orders: Orders) -> None:
        def check() -> None:
            assert orders.rows == {}, "my words"

        with pytest.raises(AssertionError, match="my words") as caught:
            test.when(PLACED).expect(check)
        assert "when:\n    OrderPlacedEvent(" in caught.value.__notes__[0]

    def test_an_error_of_the_handler_is_the_cause(self, test: ProjectorTest, orders: Orders) -> None:
        outcome = test.when(ADDED)

        with pytest.raises(AssertionError, match="OrderProjector: an error was raised") as caught:
            outcome.expect(lambda: True)
        assert isinstance(caught.value.__cause__, KeyError)

    def test_an_error(self, test: ProjectorTest) -> None:
        test.when(ADDED).expect_error(KeyError, match="ORD_1")
        with fails("OrderProjector: no error was raised", "got:\n    no error"):
            test.when(PLACED).expect_error(KeyError)

    def test_an_error_is_logged_for_those_who_look_elsewhere(
        self, test: ProjectorTest, caplog: pytest.LogCaptureFixture
    ) -> None:
        test.when(ADDED)

        assert "OrderProjector raised KeyError" in caplog.text

    def test_an_ignored_event(self, test: ProjectorTest) -> None:
        test.given(PLACED).when(PaymentCapturedEvent("ORD_1", 2)).expect_ignored().expect()
        with fails("OrderProjector: the event was handled", "expected:\n    an ignored event"):
            test.when(PLACED).expect_ignored()
        with fails("OrderProjector: no error was raised", "got:\n    an ignored event: no handler saw it"):
            test.when(PaymentCapturedEvent("ORD_1", 2)).expect_error(KeyError)

    def test_a_look_with_a_connection_where_there_is_no_database(self) -> None:
        def look(connection: AsyncConnection) -> None: ...

        with pytest.raises(TypeError, match="no database"):
            observer_test(Echo).when(PLACED).expect(look)


class TestGiven:
    def test_each_step_returns_a_test_of_its_own(self, test: ProjectorTest, orders: Orders) -> None:
        test.given(PLACED).given(ADDED).when(OrderCancelledEvent("ORD_1")).expect(lambda: orders.rows, {})
        test.when(ADDED).expect_error(KeyError)

    def test_an_event_that_cannot_be_handled(self, test: ProjectorTest) -> None:
        with fails("OrderProjector: the given ItemAddedEvent(order_id='ORD_1',", "was not handled"):
            test.given(ADDED).when(PLACED)

    def test_events_without_a_handler_are_ignored(self, test: ProjectorTest) -> None:
        test.given(PaymentCapturedEvent("ORD_1", 2)).when(PLACED).expect()

    def test_no_event(self, test: ProjectorTest) -> None:
        with pytest.raises(TypeError, match="is no event"):
            test.given(MailSendCommand("x"))  # type: ignore[arg-type]
        with pytest.raises(PayloadError):
            test.given(OrderPlacedEvent("ORD_1", 1))  # type: ignore[arg-type]


class TestWhatIsInjected:
    def test_status_says_that_the_head_is_reached_for_the_event_in_question_only(self) -> None:
        seen = Seen()
        projector_test(Curious, injector={Seen: seen}).given(PLACED, PLACED).when(PLACED).expect()
        projector_test(Curious, injector={Seen: seen}).when(PLACED, head_reached=False).expect()

        assert seen.statuses == [
            ProjectorStatus(False, 1, 1),
            ProjectorStatus(False, 2, 2),
            ProjectorStatus(True, 3, 3),
            ProjectorStatus(False, 1, 1),
        ]

    def test_the_envelope(self) -> None:
        seen, noon = Seen(), datetime(2030, 1, 1, 12, tzinfo=timezone.utc)
        event = event_message(PLACED, metadata={"user": "ann"}, timestamp=noon, aggregate_id="ORD_1", message_id="m")
        projector_test(Curious, injector={Seen: seen}).given(event).when(event).expect()

        message = seen.messages[-1]
        assert (message.payload, dict(message.metadata), message.timestamp) == (PLACED, {"user": "ann"}, noon)
        assert (message.position, message.version, message.aggregate_id, message.message_id) == (2, 2, "ORD_1", "m")

    def test_answers_to_queries(self) -> None:
        seen = Seen()
        view = OrderView("ORD_1", "ann", 7)
        test = projector_test(Curious, injector={Seen: seen}, answers={OrderFindQuery: view})
        outcome = test.when(ADDED).expect(lambda: seen.views, [view])

        assert [message.payload for message in outcome.queries] == [OrderFindQuery("ORD_1")]
        projector_test(Curious, injector={Seen: seen}, answers={OrderFindQuery: NotFound("none")}).when(
            ADDED
        ).expect_error(NotFound)

    def test_a_query_without_an_answer(self) -> None:
        outcome = projector_test(Curious, injector={Seen: Seen()}).when(ADDED)

        outcome.expect_error(HandlerNotFound, match="the test has no answer for OrderFindQuery")

    def test_an_answer_that_the_query_does_not_allow(self) -> None:
        outcome = projector_test(Curious, injector={Seen: Seen()}, answers={OrderFindQuery: 7}).when(ADDED)

        outcome.expect_error(PayloadError, match="answer of OrderFindQuery")

    def test_a_handler_that_does_not_end(self) -> None:
        test = projector_test(Curious, injector={Seen: Seen()}, timeout=0.01)

        test.when(OrderCancelledEvent("ORD_1")).expect_error(TimeoutError, match=r"not ended after 0.01 s")

    @pytest.mark.parametrize("error", [TimeoutError("mine"), ZeroDivisionError("mine")])
    def test_errors_of_handlers_in_threads(self, error: Exception) -> None:
        seen = Seen()
        seen.error = error
        outcome = projector_test(Curious, injector={Seen: seen}).when(PLACED)

        outcome.expect_error(type(error), match="mine")
        with fails("Curious: the event was handled", "mine"):
            outcome.expect_ignored()

    def test_contexts_of_the_component(self) -> None:
        test = projector_test(European, injector={Seen: Seen()})

        test.when(OrderPlacedEvent("ORD_1", "ann", context="eu-west")).expect()
        test.when(event_message(PLACED, context="eu-west")).expect()
        test.when(PLACED).expect_ignored()
        test.when(OrderPlacedEvent("ORD_1", "ann", context="us")).expect_ignored()


class TestDatabase:
    def test_each_test_has_one_in_memory(self) -> None:
        test = projector_test(Rows, setup=make_rows)

        test.given(PLACED).when(ADDED).expect(totals, {"ORD_1": 2}).expect(totals, {"ORD_1": 2})
        test.when(PLACED).expect(totals, {"ORD_1": 0})

    async def test_inside_a_running_loop(self) -> None:
        outcome = projector_test(Rows, setup=make_rows).given(PLACED).when(ADDED)
        outcome.expect(totals, {"ORD_1": 2})

        outcome = await projector_test(Rows, setup=make_rows).given(PLACED).when_async(ADDED)
        await outcome.expect_async(totals, {"ORD_1": 2})

    def test_a_url(self, tmp_path: Path) -> None:
        url = f"sqlite+aiosqlite:///{tmp_path / 'rows.db'}"

        projector_test(Rows, connection=url, setup=make_rows).when(PLACED).expect(totals, {"ORD_1": 0})
        projector_test(Rows, connection=url).when(ADDED).expect(totals, {"ORD_1": 2})

    async def test_an_engine_of_the_test(self, tmp_path: Path) -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'rows.db'}")
        test = projector_test(Rows, connection=engine, setup=make_rows)
        await test.given(PLACED).when_async(ADDED)

        async with engine.connect() as connection:
            assert await totals(connection) == {"ORD_1": 2}
        await engine.dispose()

    def test_sessions(self) -> None:
        test = projector_test(Rows, setup=make_rows).given(PLACED)

        test.when(PaymentCapturedEvent("ORD_1", 9)).expect(totals, {"ORD_1": 9})

    def test_what_a_failed_handler_has_written_is_rolled_back(self) -> None:
        test = projector_test(Rows, setup=make_rows).given(PLACED)

        test.when(OrderCancelledEvent("ORD_1")).expect_error(CommandRejected).expect(totals, {"ORD_1": 0})


class TestMaking:
    def test_an_instance(self, orders: Orders) -> None:
        projector_test(OrderProjector(orders)).when(PLACED).expect(lambda: list(orders.rows), ["ORD_1"])

    def test_other_components(self) -> None:
        with pytest.raises(DefinitionError, match=r"is no Projector: use observer_test\(\)"):
            projector_test(Echo)  # type: ignore[arg-type]

    def test_types_are_known(self, test: ProjectorTest) -> None:
        assert_type(test.when(PLACED).expect(), EventOutcome)


class TestObservers:
    def test_commands(self) -> None:
        outcome = observer_test(Echo).given(PLACED).when(event_message(ADDED, metadata={"user": "ann"}))

        outcome.expect_commands(MailSendCommand("2 tea"), PaymentCaptureCommand("ORD_1", 2)).expect()
        assert [message.metadata for message in outcome.commands] == [{"user": "ann"}] * 2

    async def test_inside_a_running_loop(self) -> None:
        observer_test(Echo).when(PLACED).expect_commands(MailSendCommand("ann"))
        (await observer_test(Echo).when_async(PLACED)).expect_commands(MailSendCommand("ann"))

    def test_other_commands(self) -> None:
        with fails("Echo: other commands were sent", "-         text='bob',", "+         text='ann',"):
            observer_test(Echo).when(PLACED).expect_commands(MailSendCommand("bob"))
        with fails("Echo: other commands were sent", "got:\n    no commands"):
            observer_test(Echo).when(PaymentCapturedEvent("ORD_1", 2)).expect_commands(MailSendCommand("bob"))

    def test_an_answer_decides_what_follows(self) -> None:
        refused = observer_test(Echo, answers={MailSendCommand: CommandRejected("no mail")}).when(ADDED)

        refused.expect_error(CommandRejected, match="no mail").expect_commands(MailSendCommand("2 tea"))
        with fails("Echo: an error was raised", "CommandRejected('no mail')"):
            observer_test(Echo, answers={MailSendCommand: CommandRejected("no mail")}).when(ADDED).expect_commands()

    def test_an_ignored_event(self) -> None:
        observer_test(Echo).when(PaymentCapturedEvent("ORD_1", 2)).expect_ignored().expect_commands()


class Seen:
    def __init__(self) -> None:
        self.statuses: list[ProjectorStatus] = []
        self.messages: list[EventMessage[Any]] = []
        self.views: list[OrderView] = []
        self.error: Exception | None = None


class Curious(Projector, version=1):
    """Asks for everything that a projector may ask for."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    @event_handler(executor="threads")
    def on_placed(
        self,
        event: OrderPlacedEvent,
        status: ProjectorStatus,
        message: EventMessage[OrderPlacedEvent],
        metadata: Metadata,
        now: datetime,
    ) -> None:
        if self._seen.error is not None:
            raise self._seen.error
        assert (metadata, now) == (message.metadata, message.timestamp)
        self._seen.statuses.append(status)
        self._seen.messages.append(message)

    @event_handler
    async def on_added(self, event: ItemAddedEvent, queries: QueryGateway) -> None:
        self._seen.views.append(await queries.query(OrderFindQuery(event.order_id)))

    @event_handler
    async def on_cancelled(self, event: OrderCancelledEvent) -> None:
        await asyncio.Event().wait()


class European(Curious, version=1, contexts=("eu*",)):
    """Reads some contexts only."""


async def make_rows(connection: AsyncConnection) -> None:
    await connection.execute(text("CREATE TABLE IF NOT EXISTS orders (order_id TEXT PRIMARY KEY, total INTEGER)"))


async def totals(connection: AsyncConnection) -> dict[str, int]:
    rows = await connection.execute(text("SELECT order_id, total FROM orders"))
    return {row.order_id: row.total for row in rows}


class Rows(Projector, version=1):
    """Keeps its read model in a table."""

    @event_handler
    async def on_placed(self, event: OrderPlacedEvent, connection: AsyncConnection) -> None:
        await connection.execute(text("INSERT INTO orders VALUES (:order_id, 0)"), {"order_id": event.order_id})

    @event_handler
    async def on_added(self, event: ItemAddedEvent, connection: AsyncConnection) -> None:
        await self._add(connection, event.quantity)

    @event_handler
    async def on_paid(self, event: PaymentCapturedEvent, session: AsyncSession) -> None:
        await self._add(await session.connection(), event.amount)

    @event_handler
    async def on_cancelled(self, event: OrderCancelledEvent, connection: AsyncConnection) -> None:
        await self._add(connection, 100)
        raise CommandRejected("not now")

    async def _add(self, connection: AsyncConnection, number: int) -> None:
        await connection.execute(text("UPDATE orders SET total = total + :number"), {"number": number})


class Echo(Observer, version=1):
    """Sends commands on events."""

    @event_handler
    async def on_placed(self, event: OrderPlacedEvent, commands: CommandGateway) -> None:
        await commands.send(MailSendCommand(event.customer))

    @event_handler
    async def on_added(self, event: ItemAddedEvent, commands: CommandGateway) -> None:
        await commands.send(MailSendCommand(f"{event.quantity} {event.sku}"))
        await commands.send(PaymentCaptureCommand(event.order_id, event.quantity))
