"""Bundles at two NATS servers that are joined by a route."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from cluster import Cluster
from nats_server import joined
from shop import (
    ItemAddCommand,
    OrderAggregate,
    OrderFindQuery,
    OrderInvoker,
    OrderPlaceCommand,
    OrderProjection,
    OrderProjector,
    Orders,
)

from evento import EventoBundle


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[tuple[Cluster, str]]:
    """A cluster at one node, and the address of the other node."""
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(node) for node in joined(tmp_path, 2)]
        cluster = Cluster(tmp_path, one)
        await cluster.start_server()
        stack.push_async_callback(cluster.stop_server)
        yield cluster, two.url


async def test_a_bundle_reaches_handlers_at_the_other_node(nodes: tuple[Cluster, str]) -> None:
    cluster, other = nodes
    injector = {Orders: Orders()}
    async with (
        cluster.bundle("orders", [OrderAggregate]),
        cluster.bundle("views", [OrderProjector, OrderProjection], injector=injector, server=other),
        cluster.bundle("web", [OrderInvoker], server=other) as web,
    ):
        placed = await web.commands.send_message(OrderPlaceCommand("ORD_1", "Ann"))
        assert placed is not None
        view = await web.queries.query(OrderFindQuery("ORD_1"), at_least=placed.position)
        assert view.customer == "Ann"


@pytest.mark.parametrize("caller", [0, 1])
async def test_a_rolling_restart_over_both_nodes_loses_no_request(nodes: tuple[Cluster, str], caller: int) -> None:
    cluster, other = nodes
    urls = (cluster.url, other)
    async with AsyncExitStack() as stack:
        caller_bundle = cluster.bundle("web", [OrderInvoker], server=urls[caller], handler_grace=25.0)
        web = await stack.enter_async_context(caller_bundle)
        replicas: list[EventoBundle] = []
        for url in urls:
            replicas.append(cluster.bundle("orders", [OrderAggregate], server=url))
            await replicas[-1].start()
            stack.push_async_callback(replicas[-1].stop)
        ended = asyncio.Event()

        async def traffic(order_id: str) -> None:
            await web.commands.send(OrderPlaceCommand(order_id, "Ann"))
            sent = 0
            while not ended.is_set():
                await web.commands.send(ItemAddCommand(order_id, "apple", 0))
                sent += 1
            assert (await cluster.store.story(order_id)).version == sent + 1

        callers = [asyncio.create_task(traffic(f"ORD_{number}")) for number in range(8)]
        for _ in range(3):
            for replica in replicas:
                await replica.stop()
                await replica.start()
        ended.set()
        await asyncio.gather(*callers)
