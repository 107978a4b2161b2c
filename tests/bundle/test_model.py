"""Random commands, resends, cancellations and restarts against a plain model of what is promised.

The same few histories in every test run; ``EVENTO_MODEL_EXAMPLES=500`` tries that many others.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from depot import KeptOrderAggregate, decided_on
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule
from journal import Order
from killing import all_events
from shop import (
    Ledger,
    OrderFindQuery,
    OrderInvoker,
    OrderProjection,
    OrderProjector,
    Orders,
    PaymentService,
)
from work import assert_nothing_stays_behind, inside

from evento import EventMessage, EventoBundle, EventoError, NotFound, PayloadError
from evento.state_store.sqlite import SqliteStateStore

T = TypeVar("T")
EXAMPLES = int(os.environ.get("EVENTO_MODEL_EXAMPLES", "20"))


class ShopOrderAggregate(KeptOrderAggregate, snapshot_frequency=2):
    """Orders with more snapshots."""


COMPONENTS = (ShopOrderAggregate, PaymentService, OrderProjector, OrderProjection, OrderInvoker)

order_ids = st.sampled_from("AAAB")  # mostly one, so that commands meet
locks = st.sampled_from(["own", "own", "LOCK_1", "LOCK_2"])
rarely = st.sampled_from([False] * 9 + [True])
additions = st.builds(
    Order, st.just(""), st.just("add"), order_ids, st.sampled_from([1, 2, 3, -7, 60]), locks, rarely, rarely
)
others = st.builds(
    Order, st.just(""), st.sampled_from(["place", "pay", "pay", "cancel"]), order_ids, st.integers(-1, 9)
)
commands = st.sampled_from([additions] * 4 + [others]).flatmap(lambda kind: kind)


@dataclass
class Told:
    """The answer to one command."""

    order: Order
    position: int = 0
    version: int | None = None
    decided_on: str = ""
    error: str = ""


@dataclass
class Model:
    """What the system must hold: for each order its total (None: not placed) and whether it is gone."""

    totals: dict[str, int] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    versions: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    stored: dict[str, tuple[Order, int, int]] = field(default_factory=dict)
    head: int = 0

    def refusal(self, order: Order) -> str:
        """Return the class of the error that a command must get now; empty when it must succeed."""
        if order.kind == "pay":
            return "CommandRejected" if order.quantity < 0 else ""
        if order.order_id in self.gone:
            return "AggregateDeleted"
        if order.kind == "place":
            return "AggregateAlreadyInitialized" if order.order_id in self.totals else ""
        if order.order_id not in self.totals:
            return "AggregateNotInitialized"
        if order.kind == "add" and self.totals[order.order_id] + order.quantity > 100:
            return "CommandRejected"
        return ""

    def take(self, order: Order) -> tuple[int, int]:
        """Let a command succeed; return the position and version of its event."""
        match order.kind:
            case "place":
                self.totals[order.order_id] = 0
            case "add":
                self.totals[order.order_id] += order.quantity
            case "cancel":
                self.gone.add(order.order_id)
        stream = f"PAY_{order.order_id}" if order.kind == "pay" else order.order_id
        self.head += 1
        self.versions[stream] += 1
        self.stored[order.id] = (order, self.head, self.versions[stream])
        return self.head, self.versions[stream]


class Shop(RuleBasedStateMachine):
    """The shop on a file, beside its model."""

    sent: Bundle[Order] = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.refused: set[str] = set()
        self.folder = tempfile.TemporaryDirectory(prefix="evento-test-")
        self.path = Path(self.folder.name) / "shop.db"
        self.orders = Orders()
        self.ledger = Ledger()
        self.runner = asyncio.Runner()
        self.numbers = 0
        self.cache_size = 8192

    def do(self, work: Awaitable[T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(20):
                return await work

        return self.runner.run(bounded())

    def numbered(self, order: Order) -> Order:
        self.numbers += 1
        return Order(
            f"msg-{self.numbers}", order.kind, order.order_id, order.quantity, order.lock, order.cold, order.replay
        )

    # Running ---------------------------------------------------------------------------------------------------------

    @initialize(target=sent)
    def begin(self) -> Any:
        self.start()
        placed = [self.numbered(Order("", "place", order_id)) for order_id in "AB"]
        for order in placed:
            self.check_one(self.do(self.send(order)))
        return multiple(*placed)

    def start(self) -> None:
        self.shop = EventoBundle(
            "shop",
            components=COMPONENTS,
            server=f"embedded:{self.path}",
            injector={Orders: self.orders, Ledger: self.ledger},
            state_cache_size=self.cache_size,
            max_concurrent_handlers=4,
        )
        self.do(self.shop.start())

    @rule(cache_size=st.sampled_from([0, 1, 8192]))
    def restart(self, cache_size: int) -> None:
        self.do(self.shop.stop())
        self.cache_size = cache_size
        self.start()

    def teardown(self) -> None:
        try:
            if hasattr(self, "shop"):
                self.do(self.check())
                self.do(self.shop.stop())
                self.do(self.check_store())
        finally:
            if hasattr(self, "shop"):
                self.do(self.shop.stop())
            self.runner.close()
            self.folder.cleanup()

    async def check(self) -> None:
        await assert_nothing_stays_behind(self.shop)
        assert await inside(self.shop).store.head() == self.model.head
        for order_id in "AB":
            await self.check_view(order_id)
        await self.shop.consumers_caught_up()
        assert self.ledger.overlaps == 0

    async def check_store(self) -> None:
        async with SqliteStateStore(self.path) as store:
            assert (await store.verify()).ok
            events = await all_events(store)
        assert {event.command_id: (event.position, event.version) for event in events} == {
            key: (position, version) for key, (_, position, version) in self.model.stored.items()
        }

    # One command -----------------------------------------------------------------------------------------------------

    async def send(self, order: Order) -> Told:
        try:
            message: EventMessage[Any] | None = await self.shop.commands.send_message(
                order.command, message_id=order.id, timeout=10
            )
        except EventoError as error:
            return Told(order, error=type(error).__name__ if error.definite else "unknown")
        assert message is not None
        return Told(order, message.position, message.version, getattr(message.payload, "sku", ""))

    @rule(target=sent, order=commands)
    def command(self, order: Order) -> Order:
        order = self.numbered(order)
        told = self.do(self.send(order))
        self.check_one(told)
        return order

    def check_one(self, told: Told) -> None:
        """Check the answer to a command that nothing else ran beside."""
        order = told.order
        if order.id in self.model.stored:
            assert (told.position, told.version) == self.model.stored[order.id][1:]
        elif order.id in self.refused and told.error:
            pass  # a resend that was refused may stay refused
        elif refusal := self.model.refusal(order):
            assert told.error == refusal
        else:
            assert not told.error
            self.take(told)

    def take(self, told: Told) -> None:
        """Let a command succeed in the model as it did, on the same state."""
        if told.order.kind == "add":
            assert told.decided_on == decided_on(self.model.totals[told.order.order_id])
        assert (told.position, told.version) == self.model.take(told.order)

    @rule(order=sent)
    def resend(self, order: Order) -> None:
        self.check_one(self.do(self.send(order)))

    @rule(order=sent, other=commands)
    def steal_an_id(self, order: Order, other: Order) -> None:
        if order.id not in self.model.stored or (order.kind, order.order_id) == (other.kind, other.order_id):
            return
        thief = Order(order.id, other.kind, other.order_id, other.quantity, other.lock)
        with pytest.raises(PayloadError, match="belongs to another command"):
            self.do(self.shop.commands.send(thief.command, message_id=thief.id))

    @rule(target=sent, order=commands, turns=st.integers(0, 60))
    def cancel_a_caller(self, order: Order, turns: int) -> Order:
        order = self.numbered(order)

        async def cancel() -> Told:
            caller = asyncio.create_task(self.send(order))
            for _ in range(turns):
                await asyncio.sleep(0)
            caller.cancel()
            await asyncio.wait([caller])
            return await self.send(order)

        told = self.do(cancel())
        if told.error:
            self.refused.add(order.id)  # for good, perhaps: its first attempt was open when it was refused
        self.check_one(told)
        return order

    # Many at a time --------------------------------------------------------------------------------------------------

    @rule(target=sent, orders=st.lists(commands, min_size=2, max_size=12), again=st.lists(sent, max_size=3))
    def at_a_time(self, orders: Sequence[Order], again: Sequence[Order]) -> Any:
        fresh = [self.numbered(order) for order in orders]
        twice = [*fresh, *fresh[:2], *again]

        async def all_of_them() -> list[Told]:
            return await asyncio.gather(*(self.send(order) for order in twice))

        answers = self.do(all_of_them())
        self.check_many(answers)
        return multiple(*fresh)

    def check_many(self, answers: Sequence[Told]) -> None:
        """Check answers of commands that ran beside each other: in the order of their events, each was right."""
        possible = {told.order.id: {self.model.refusal(told.order)} for told in answers}
        stored: dict[str, Told] = {}
        for told in sorted((told for told in answers if not told.error), key=lambda told: told.position):
            assert stored.setdefault(told.order.id, told).position == told.position
            if told.order.id in self.model.stored:
                assert (told.position, told.version) == self.model.stored[told.order.id][1:]
                continue
            assert self.model.refusal(told.order) == "", told
            self.take(told)
            for other in answers:
                possible[other.order.id].add(self.model.refusal(other.order))
        for told in answers:
            if told.error and told.order.id not in self.refused:
                assert told.error in possible[told.order.id]
                self.refused.add(told.order.id)

    # The read model --------------------------------------------------------------------------------------------------

    @rule(order_id=order_ids)
    def look(self, order_id: str) -> None:
        self.do(self.check_view(order_id))

    async def check_view(self, order_id: str) -> None:
        query = self.shop.queries.query(OrderFindQuery(order_id), at_least=self.model.head)
        if order_id in self.model.totals and order_id not in self.model.gone:
            assert (await query).total == self.model.totals[order_id]
        else:
            with pytest.raises(NotFound):
                await query


Shop.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize="EVENTO_MODEL_EXAMPLES" not in os.environ,
)
TestShop = pytest.mark.timeout(400)(Shop.TestCase)  # a failure is shrunk before it is told
