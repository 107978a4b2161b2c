"""Invokers: their methods run through the bundle's runtime, and their gateways work only there."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Mapping
from typing import Any, cast

import pytest

from evento import (
    CommandGateway,
    EventoError,
    HandlerDefinition,
    HandlerKind,
    InvocationMessage,
    Invoker,
    Metadata,
    QueryGateway,
    invocation_handler,
    track,
)
from evento.components import component_definition
from evento.gateway.handling import Handling, handling_now


class Runtime:
    """Runs invocations as a bundle does, and notes them."""

    def __init__(self) -> None:
        self.commands = cast(CommandGateway, object())
        self.queries = cast(QueryGateway, object())
        self.invoked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    async def invoke(
        self, instance: object, handler: HandlerDefinition, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        self.invoked.append((handler.payload_name, args, dict(kwargs)))
        message = InvocationMessage[Any]({}, name=handler.payload_name, message_id="m")
        handling = Handling(message, handler=handler.id, metadata=Metadata(), may_send=True, may_query=True)
        token = handling_now.set(handling)
        try:
            return await handler.function(instance, *args, **kwargs)
        finally:
            handling_now.reset(token)


class Shop(Invoker):
    @invocation_handler
    async def order(self, customer: str, /, *, amount: int = 1) -> str:
        """Order something."""
        assert self.commands is not None
        return f"{customer}:{amount}"

    @invocation_handler()
    def later(self) -> Awaitable[str]:
        return self._later()

    async def _later(self) -> str:
        return "later"

    @invocation_handler
    async def gateways(self) -> tuple[CommandGateway, QueryGateway]:
        return self.commands, self.queries

    @invocation_handler
    async def nested(self) -> str:
        return await self.order("inner")

    async def unmarked(self) -> CommandGateway:
        return self.commands


class Bigger(Shop):
    @invocation_handler
    async def order(self, customer: str, /, *, amount: int = 1) -> str:
        return "big " + await super().order(customer, amount=amount)

    async def later(self) -> str:
        return "much " + await super().later()


def started(shop: Shop) -> tuple[Shop, Runtime]:
    runtime = Runtime()
    shop._evento_runtime = runtime
    return shop, runtime


async def test_a_call_runs_through_the_runtime() -> None:
    shop, runtime = started(Shop())

    assert await shop.order("ann", amount=2) == "ann:2"
    assert await shop.later() == "later"
    assert runtime.invoked == [("Shop::order", ("ann",), {"amount": 2}), ("Shop::later", (), {})]


async def test_gateways_are_those_of_the_runtime() -> None:
    shop, runtime = started(Shop())
    assert await shop.gateways() == (runtime.commands, runtime.queries)


async def test_a_nested_invocation_is_one_of_its_own() -> None:
    shop, runtime = started(Shop())
    assert await shop.nested() == "inner:1"
    assert [name for name, _, _ in runtime.invoked] == ["Shop::nested", "Shop::order"]


async def test_the_method_of_the_base_class_runs_within_the_same_invocation() -> None:
    shop, runtime = started(Bigger())
    assert await shop.order("ann") == "big ann:1"
    assert await shop.later() == "much later"
    assert [name for name, _, _ in runtime.invoked] == ["Bigger::order", "Bigger::later"]


async def test_without_a_bundle_nothing_works() -> None:
    shop = Shop()
    with pytest.raises(EventoError, match=r"this Shop belongs to no bundle: get it by bundle\.invoker\(Shop\)"):
        await shop.order("ann")
    for gateway in ("commands", "queries"):
        with pytest.raises(EventoError, match="belongs to no bundle"):
            getattr(shop, gateway)


async def test_outside_an_invocation_gateways_raise() -> None:
    shop, _ = started(Shop())
    with pytest.raises(EventoError, match=r"Shop\.commands works only while .* @invocation_handler runs"):
        await shop.unmarked()
    with pytest.raises(EventoError, match=r"Shop\.queries works only"):
        _ = shop.queries


def test_methods_keep_their_signature() -> None:
    assert Shop.order.__name__ == "order"
    assert Shop.order.__doc__ == "Order something."
    assert list(inspect.signature(Shop.order).parameters) == ["self", "customer", "amount"]
    assert inspect.iscoroutinefunction(Shop.order)
    assert [handler.name for handler in component_definition(Shop).handlers] == ["order", "later", "gateways", "nested"]


def test_track_stands_above_or_below() -> None:
    class Tracked(Invoker):
        @invocation_handler
        @track
        async def below(self) -> None: ...

        @track
        @invocation_handler
        async def above(self) -> None: ...

        @invocation_handler
        async def without(self) -> None: ...

    handlers = component_definition(Tracked).handlers_of(HandlerKind.INVOCATION)
    assert {handler.name: handler.tracked for handler in handlers} == {"below": True, "above": True, "without": False}
