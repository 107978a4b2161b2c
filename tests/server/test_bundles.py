"""Bundles of users at a whole server that asks for tokens: all works, and impostors are refused unnoticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from running_server import FREE, fetch, free_settings, token_for
from shop import (
    ItemAddCommand,
    OrderAggregate,
    OrderFindQuery,
    OrderInvoker,
    OrderPlaceCommand,
    OrderProjection,
    OrderProjector,
    Orders,
    TransferService,
)
from waiting import eventually

from evento import AuthenticationError, EventoBundle, EventoError
from evento.server.server import EventoServer
from evento.server.tokens import TokenFile
from evento.server.values import Address


class Site:
    """A server that asks for tokens, and bundles at it."""

    def __init__(self, server: EventoServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.tokens: dict[str, str] = {}

    def allow(self, bundle_id: str, *serves: str) -> None:
        self.tokens[bundle_id] = token_for(self.server, bundle_id, *serves)

    def bundle(self, bundle_id: str, components: Any, **options: Any) -> EventoBundle:
        return EventoBundle(
            bundle_id,
            components=components,
            server=self.server.gateway_url,
            cluster="shop",
            **{
                "token": self.tokens.get(bundle_id),
                "start_timeout": 30.0,
                "consumer_state_store": f"sqlite+aiosqlite:///{self.folder / bundle_id}.db",
                **options,
            },
        )


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    file = TokenFile(tmp_path / "data" / "tokens.json")
    file.create("nobody")  # so that tokens are asked for from the beginning
    async with EventoServer(free_settings(tmp_path / "data")) as server:
        yield Site(server, tmp_path)


async def tokens_known(site: Site) -> None:
    """Wait until the gateway knows the tokens of now."""
    for bundle_id in site.tokens:

        async def known(bundle_id: str = bundle_id) -> bool:
            try:
                async with site.bundle(bundle_id, []):
                    return True
            except AuthenticationError:
                return False

        await eventually(known)


@pytest.fixture
async def shop(site: Site) -> AsyncIterator[Site]:
    """The command side with reserved names, the query side without, and a web bundle that only sends."""
    site.allow("orders", "OrderPlaceCommand", "ItemAddCommand", "OrderCancelCommand")
    for bundle_id in ("views", "web", "thief"):
        site.allow(bundle_id)
    await tokens_known(site)
    orders = Orders()
    async with (
        site.bundle("orders", [OrderAggregate]),
        site.bundle("views", [OrderProjector, OrderProjection], injector={Orders: orders}),
    ):
        yield site


async def test_bundles_with_tokens_do_all_that_bundles_do(shop: Site) -> None:
    async with shop.bundle("web", [OrderInvoker]) as web:
        for number in range(20):
            await web.commands.send(OrderPlaceCommand(order_id=f"ORD_{number}", customer="ann"))
        await web.commands.send(ItemAddCommand(order_id="ORD_1", sku="pen"))

        async def projected() -> bool:
            try:
                return bool(await web.queries.query(OrderFindQuery(order_id="ORD_19")))
            except EventoError:
                return False

        await eventually(projected)
        with pytest.raises(EventoError):
            await web.commands.send(OrderPlaceCommand(order_id="ORD_1", customer="ann"))

    text = ""

    async def told() -> bool:
        nonlocal text
        text = (await fetch(shop.server, "/metrics")).text
        return sample(text, "evento_consumer_position", "OrderProjector") == handled(text) == 21

    await eventually(told)
    assert 'evento_instances{bundle="orders",state="enabled"} 1.0' in text
    assert "evento_store_appended_events_total 21.0" in text
    assert sample(text, "evento_handler_failures_total", "OrderPlaceCommand") == 1
    assert sample(text, "evento_consumer_lag_events", "OrderProjector") == 0
    assert sample(text, "evento_consumer_lag_seconds", "OrderProjector") == 0
    assert sample(text, "evento_consumer_position", "OrderProjector") == 21
    assert sample(text, "evento_handler_seconds_count", "OrderPlacedEvent") == 20


def handled(text: str) -> float:
    return sample(text, "evento_handler_seconds_count", "OrderPlaceCommand")


def sample(text: str, name: str, label: str) -> float:
    """The value of the one sample of a metric with a label of this value; -1 when there is none."""
    found = [line for line in text.splitlines() if line.startswith(f"{name}{{") and f'"{label}"' in line]
    return float(found[0].rpartition(" ")[2]) if found else -1


async def test_an_impostor_is_refused_and_nobody_notices(shop: Site) -> None:
    async with shop.bundle("web", [OrderInvoker]) as web:

        async def work() -> None:
            for number in range(100):
                await web.commands.send(OrderPlaceCommand(order_id=f"ORD_{number}", customer="ann"))

        working = asyncio.create_task(work())
        for impostor in (
            shop.bundle("orders", [OrderAggregate], token="wrong"),
            shop.bundle("orders", [OrderAggregate], token=None),
            shop.bundle("orders", [OrderAggregate], token=shop.tokens["thief"]),
            shop.bundle("evento-server", [], token=shop.tokens["thief"]),
            shop.bundle("thief", [OrderAggregate]),
        ):
            with pytest.raises(EventoError):
                async with impostor:
                    pytest.fail("an impostor was let in")
        await working


async def test_a_bundle_whose_name_is_not_in_its_token_is_refused_at_its_start(site: Site) -> None:
    site.allow("orders", "OrderPlaceCommand")
    await tokens_known(site)

    with pytest.raises(AuthenticationError, match=r"ItemAddCommand|OrderCancelCommand"):
        async with site.bundle("orders", [OrderAggregate]):
            pytest.fail("it serves what it may not")


async def test_bundles_go_on_when_the_server_has_come_back(tmp_path: Path) -> None:
    port = Address("127.0.0.1", free_port())
    settings = replace(free_settings(tmp_path / "data"), gateway=port)
    TokenFile(settings.token_file).create("nobody")
    tokens = {name: TokenFile(settings.token_file).create(name) for name in ("orders", "web")}
    server = EventoServer(settings)
    await server.__aenter__()
    site = Site(server, tmp_path)
    site.tokens = tokens
    async with site.bundle("orders", [OrderAggregate, TransferService]), site.bundle("web", [OrderInvoker]) as web:
        await web.commands.send(OrderPlaceCommand(order_id="ORD_1", customer="ann"))
        await server.__aexit__()
        sending = asyncio.create_task(
            web.commands.send(OrderPlaceCommand(order_id="ORD_2", customer="ann"), timeout=30)
        )
        async with EventoServer(replace(settings, http=FREE)):
            await sending
            await web.commands.send(ItemAddCommand(order_id="ORD_1", sku="pen"))


async def test_a_server_that_leaves_under_load_loses_nothing_and_stores_nothing_twice(site: Site) -> None:
    site.allow("orders")
    site.allow("web")
    await tokens_known(site)
    answered: list[str] = []
    enough = asyncio.Event()
    async with site.bundle("orders", [OrderAggregate]), site.bundle("web", [OrderInvoker]) as web:

        async def send(number: int) -> None:
            event = await web.commands.send(OrderPlaceCommand(order_id=f"ORD_{number}", customer="ann"), timeout=40)
            assert event is not None
            answered.append(f"ORD_{number}")
            if len(answered) == 20:
                enough.set()

        sending = [asyncio.create_task(send(number)) for number in range(200)]
        await enough.wait()
        await site.server.__aexit__()
        async with EventoServer(replace(site.server.settings, http=FREE)) as again:
            await asyncio.gather(*sending)
            stored = (await fetch(again, "/metrics")).text.partition("\nevento_store_head ")[2].partition("\n")[0]
    assert len(answered) == float(stored) == 200
