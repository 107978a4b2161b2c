"""Invokers, metadata flow, tracing and interceptors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from shop import (
    COMPONENTS,
    OrderAggregate,
    OrderFindQuery,
    OrderInvoker,
    OrderPlaceCommand,
    OrderPlacedEvent,
    OrderView,
)

from evento import (
    CommandRejected,
    EventMessage,
    EventoBundle,
    EventoError,
    HandlerCall,
    HandlerDefinition,
    HandlerKind,
    Interceptor,
    Invoker,
    Message,
    Metadata,
    Projector,
    TracingAgent,
    event_handler,
    invocation_handler,
    track,
)

MakeBundle = Callable[..., EventoBundle]
T = TypeVar("T")


class Seen:
    def __init__(self) -> None:
        self.messages: list[EventMessage[OrderPlacedEvent]] = []


class SeeingProjector(Projector, version=1):
    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    @event_handler
    def on_placed(self, event: OrderPlacedEvent, message: EventMessage[OrderPlacedEvent]) -> None:
        self._seen.messages.append(message)


async def test_an_invoker_sends_commands_and_queries(bundle: EventoBundle) -> None:
    invoker = bundle.invoker(OrderInvoker)
    assert await invoker.place("ORD_1", "ann", user="bob") == "ORD_1"
    await bundle.consumers_caught_up()
    assert await invoker.find("ORD_1") == OrderView("ORD_1", "ann", 0)
    assert bundle.invoker(OrderInvoker) is invoker


def _invoker(answer: str) -> Any:
    class Twin(Invoker):
        @invocation_handler
        async def answer(self) -> str:
            return answer

    return Twin


async def test_invokers_of_one_name_are_told_apart(bundle: EventoBundle) -> None:
    left, right = _invoker("left"), _invoker("right")
    assert [await bundle.invoker(cls).answer() for cls in (left, right, left)] == ["left", "right", "left"]


async def test_gateways_of_an_invoker_raise_outside_an_invocation(bundle: EventoBundle) -> None:
    class SlyInvoker(Invoker):
        @invocation_handler
        async def fine(self) -> None:
            assert self.commands is not None

        async def not_a_handler(self) -> None:
            await self.commands.send(OrderPlaceCommand("ORD_1", "ann"))

    invoker = bundle.invoker(SlyInvoker)
    await invoker.fine()
    with pytest.raises(EventoError, match="invocation"):
        await invoker.not_a_handler()
    with pytest.raises(EventoError, match="bundle"):
        await SlyInvoker().fine()


async def test_metadata_correlation_and_causation_flow_from_the_invocation(make_bundle: MakeBundle) -> None:
    seen = Seen()
    import shop

    injector = {Seen: seen, shop.Orders: shop.Orders(), shop.Ledger: shop.Ledger()}
    async with make_bundle(components=[*COMPONENTS, SeeingProjector], injector=injector) as bundle:
        await bundle.invoker(OrderInvoker).place("ORD_1", "ann", user="bob")
        await bundle.consumers_caught_up()
    (message,) = seen.messages
    assert message.metadata == {"user": "bob"}
    assert message.correlation_id != message.message_id
    assert message.causation_id not in {None, message.correlation_id}


async def test_a_tracing_agent_changes_what_flows_and_wraps_every_handler(make_bundle: MakeBundle) -> None:
    class Agent(TracingAgent):
        def __init__(self) -> None:
            self.tracked: list[tuple[str, str, bool]] = []

        def correlate(self, metadata: Metadata, handled: Message | None) -> Metadata:
            return Metadata({**metadata, "trace": metadata.get("trace", "new")})

        async def track(self, message: Message, handler: HandlerDefinition, proceed: Callable[[], Awaitable[T]]) -> T:
            self.tracked.append((handler.id, message.metadata["trace"], handler.tracked))
            return await proceed()

    class TracedInvoker(Invoker):
        @invocation_handler
        @track
        async def place(self) -> None:
            await self.commands.send(OrderPlaceCommand("ORD_1", "ann"))

    agent = Agent()
    async with make_bundle(components=[*COMPONENTS, TracedInvoker], tracing=agent) as bundle:
        await bundle.invoker(TracedInvoker).place()
        await bundle.consumers_caught_up()
    assert agent.tracked == [
        ("TracedInvoker.place", "new", True),
        ("OrderAggregate.place", "new", False),
        ("OrderProjector.on_placed", "new", False),
    ]


async def test_interceptors_run_around_the_handlers_of_their_kinds(make_bundle: MakeBundle) -> None:
    class Recorder(Interceptor):
        def __init__(self, name: str, log: list[str]) -> None:
            self.name = name
            self.log = log

        async def before(self, call: HandlerCall) -> None:
            self.log.append(f"{self.name} before {call.handler.id}")

        async def after(self, call: HandlerCall, result: Any) -> Any:
            self.log.append(f"{self.name} after {call.handler.id}")
            return result

        async def on_exception(self, call: HandlerCall, error: Exception) -> Exception:
            self.log.append(f"{self.name} error {call.handler.id}")
            return CommandRejected(f"{self.name}: {error}")

    class Commands(Recorder):
        kinds = frozenset({HandlerKind.AGGREGATE_COMMAND})

    log: list[str] = []
    async with make_bundle(
        components=[OrderAggregate], interceptors=[Commands("outer", log), Commands("inner", log)]
    ) as b:
        await b.commands.send(OrderPlaceCommand("ORD_1", "ann"))
        with pytest.raises(CommandRejected, match="outer: inner: an order needs"):
            await b.commands.send(OrderPlaceCommand("ORD_2", ""))
    assert log == [
        "outer before OrderAggregate.place",
        "inner before OrderAggregate.place",
        "inner after OrderAggregate.place",
        "outer after OrderAggregate.place",
        "outer before OrderAggregate.place",
        "inner before OrderAggregate.place",
        "inner error OrderAggregate.place",
        "outer error OrderAggregate.place",
    ]


async def test_an_interceptor_may_refuse_a_call_and_replace_a_result(make_bundle: MakeBundle) -> None:
    class Guard(Interceptor):
        kinds = frozenset({HandlerKind.AGGREGATE_COMMAND, HandlerKind.QUERY})

        async def before(self, call: HandlerCall) -> None:
            if call.kind is HandlerKind.AGGREGATE_COMMAND and call.message.metadata.get("user") != "ann":
                raise CommandRejected("only ann may")

        async def after(self, call: HandlerCall, result: Any) -> Any:
            return OrderView("ORD_1", "hidden", 0) if call.kind is HandlerKind.QUERY else result

    async with make_bundle(interceptors=[Guard()]) as bundle:
        with pytest.raises(CommandRejected, match="only ann may"):
            await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
        message = await bundle.commands.send_message(OrderPlaceCommand("ORD_1", "ann"), metadata={"user": "ann"})
        view = await bundle.queries.query(OrderFindQuery("ORD_1"), at_least=message.position)
    assert view.customer == "hidden"
