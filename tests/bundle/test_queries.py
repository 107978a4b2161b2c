"""Queries: answers, errors, and reads that see a write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from shop import (
    COMPONENTS,
    ItemAddCommand,
    OrderAggregate,
    OrderFindQuery,
    OrderPlaceCommand,
    OrderPlacedEvent,
    OrderSearchQuery,
    OrderView,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from waiting import eventually

from evento import (
    CapabilityError,
    CommandGateway,
    EventoBundle,
    NotFound,
    PayloadError,
    Projection,
    Projector,
    Query,
    QueryGateway,
    QueryRejected,
    ReadModelBehind,
    View,
    databases,
    event_handler,
    query_handler,
)
from evento.bundle import projections

MakeBundle = Callable[..., EventoBundle]


async def test_a_query_at_least_at_a_position_sees_the_write(bundle: EventoBundle) -> None:
    for number in range(20):
        order = f"ORD_{number}"
        await bundle.commands.send(OrderPlaceCommand(order, "ann"))
        message = await bundle.commands.send_message(ItemAddCommand(order, "tea", 3))
        view = await bundle.queries.query(OrderFindQuery(order), at_least=message.position)
        assert view == OrderView(order, "ann", 3)
    assert len(await bundle.queries.query(OrderSearchQuery("ann"))) == 20


async def test_a_position_that_is_not_reached_is_a_clear_error(
    bundle: EventoBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The wait ends at most 50 ms before the deadline, which a busy machine may sleep through.
    monkeypatch.setattr(projections, "answer_by", lambda deadline: deadline - 20)
    message = await bundle.commands.send_message(OrderPlaceCommand("ORD_1", "ann"))
    with pytest.raises(ReadModelBehind, match="OrderProjector"):
        await bundle.queries.query(OrderFindQuery("ORD_1"), at_least=message.position + 1, timeout=20.3)


class LookView(View):
    seen: int


class LookQuery(Query[LookView]):
    pass


class LookBeyondQuery(Query[LookView]):
    """Its handler waits for the read model itself."""

    position: int


class Gate:
    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()


class AskingProjector(Projector, version=1):
    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    @event_handler
    async def on_placed(self, event: OrderPlacedEvent, queries: QueryGateway) -> None:
        self._gate.entered.set()
        await self._gate.opened.wait()
        await queries.query(LookQuery(), timeout=5)


class LookProjection(Projection):
    @query_handler
    def look(self, query: LookQuery) -> LookView:
        return LookView(1)

    @query_handler
    async def look_beyond(self, query: LookBeyondQuery, queries: QueryGateway) -> LookView:
        return await queries.query(LookQuery(), at_least=query.position)


async def test_those_who_wait_for_a_projector_take_no_place_that_others_need(make_bundle: MakeBundle) -> None:
    gate = Gate()
    options = {"components": [OrderAggregate, AskingProjector, LookProjection], "injector": {Gate: gate}}
    async with make_bundle(**options, max_concurrent_handlers=1) as bundle:
        message = await bundle.commands.send_message(OrderPlaceCommand("ORD_1", "ann"))
        await gate.entered.wait()
        waiting = [
            asyncio.create_task(bundle.queries.query(LookQuery(), at_least=message.position, timeout=10))
            for _ in range(3)
        ]
        await asyncio.sleep(0)
        await bundle.commands.send(ItemAddCommand("ORD_1", "tea"), timeout=5)
        assert not any(task.done() for task in waiting)
        gate.opened.set()
        assert await asyncio.gather(*waiting) == [LookView(1)] * 3


async def test_what_a_projector_asks_does_not_queue_behind_those_who_wait_for_it(make_bundle: MakeBundle) -> None:
    gate = Gate()
    options = {"components": [OrderAggregate, AskingProjector, LookProjection], "injector": {Gate: gate}}
    async with make_bundle(**options, max_concurrent_handlers=1) as bundle:
        message = await bundle.commands.send_message(OrderPlaceCommand("ORD_1", "ann"))
        await gate.entered.wait()
        waiting = asyncio.create_task(bundle.queries.query(LookBeyondQuery(message.position), timeout=10))
        await asyncio.sleep(0)
        gate.opened.set()
        assert await waiting == LookView(1)


class KeepingProjector(Projector, version=1):
    """Asks while the checkpoint's transaction is open."""

    @event_handler(retry=0)
    async def on_placed(self, event: OrderPlacedEvent, connection: AsyncConnection, queries: QueryGateway) -> None:
        await queries.query(LookQuery())


class SlowProjection(Projection):
    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    @query_handler
    async def look(self, query: LookQuery) -> LookView:
        await self._gate.opened.wait()
        return LookView(1)


async def test_an_answer_that_does_not_come_to_an_open_transaction_is_waited_for(
    make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "IDLE_SECONDS", 0.3)
    gate = Gate()
    options = {"components": [OrderAggregate, KeepingProjector, SlowProjection], "injector": {Gate: gate}}
    async with make_bundle(**options) as bundle:
        await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))

        async def timed_out() -> bool:
            return "got no answer" in ((await bundle.consumers.show("KeepingProjector")).last_error or "")

        await eventually(timed_out)
        gate.opened.set()
        await bundle.consumers_caught_up(timeout=20)
        assert (await bundle.consumers.show("KeepingProjector")).dead == 0


async def test_what_does_not_exist_is_not_found(bundle: EventoBundle) -> None:
    with pytest.raises(NotFound, match="ORD_9") as caught:
        await bundle.queries.query(OrderFindQuery("ORD_9"))
    assert isinstance(caught.value, QueryRejected)
    assert caught.value.data == {"order_id": "ORD_9"}


async def test_an_answer_of_the_wrong_type_is_a_payload_error(make_bundle: MakeBundle) -> None:
    class NumberView(View):
        number: int

    class NumberQuery(Query[NumberView]):
        pass

    class MaybeQuery(Query[NumberView | None]):
        pass

    class Numbers(Projection):
        @query_handler
        def number(self, query: NumberQuery) -> NumberView:
            return NumberView("one")  # type: ignore[arg-type]

        @query_handler
        def maybe(self, query: MaybeQuery) -> NumberView | None:
            return None

    async with make_bundle(components=[*COMPONENTS, Numbers]) as bundle:
        with pytest.raises(PayloadError, match="number"):
            await bundle.queries.query(NumberQuery())
        assert await bundle.queries.query(MaybeQuery()) is None


async def test_a_federated_query_asks_other_projections(make_bundle: MakeBundle) -> None:
    class CountView(View):
        orders: int

    class CountQuery(Query[CountView]):
        pass

    class Counts(Projection):
        @query_handler
        async def count(self, query: CountQuery, queries: QueryGateway) -> CountView:
            return CountView(len(await queries.query(OrderSearchQuery())))

    async with make_bundle(components=[*COMPONENTS, Counts]) as bundle:
        message = await bundle.commands.send_message(OrderPlaceCommand("ORD_1", "ann"))
        assert await bundle.queries.query(CountQuery(), at_least=message.position) == CountView(1)


async def test_a_projection_that_keeps_a_command_gateway_may_not_use_it(make_bundle: MakeBundle) -> None:
    class EvilQuery(Query[OrderView | None]):
        pass

    class Evil(Projection):
        def __init__(self, commands: CommandGateway) -> None:
            self._commands = commands

        @query_handler
        async def ask(self, query: EvilQuery) -> OrderView | None:
            await self._commands.send(OrderPlaceCommand("ORD_1", "ann"))
            return None

    async with make_bundle(components=[*COMPONENTS, Evil]) as bundle:
        with pytest.raises(CapabilityError, match="may not send commands"):
            await bundle.queries.query(EvilQuery())


async def test_consumers_caught_up_waits_for_the_read_model(bundle: EventoBundle) -> None:
    await asyncio.gather(*(bundle.commands.send(OrderPlaceCommand(f"ORD_{n}", "bob")) for n in range(200)))
    await bundle.consumers_caught_up(timeout=10)
    assert len(await bundle.queries.query(OrderSearchQuery("bob"))) == 200
