"""Consumers in two replicas: when one dies or stands still for longer than its lease, the other goes on.

Nothing is lost, nothing is done twice, also when the one that stood still comes back and believes that it is in charge.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path

import pytest
from cluster_chaos import ChaosCluster, chaos_cluster
from cluster_site import CLUSTER
from cluster_watchers import make_rows, rows
from cluster_worker import store_of
from killing import all_events
from seven_roles import seen
from shop import OrderInvoker, OrderPlaceCommand

from evento import EventoBundle
from evento.messages import EventRecord
from evento.testing.postgres import PostgresServer

pytestmark = pytest.mark.chaos

ROLES = {"orders": ("handle", "handlers"), "watch-1": ("watch", "others"), "watch-2": ("watch", "others")}
EACH = 4


@pytest.mark.timeout(100)
async def test_on_sqlite(tmp_path: Path) -> None:
    async with chaos_cluster(tmp_path, roles=ROLES, prepare=make_rows) as cluster:
        await _replicas_stand_in_for_each_other(cluster)


@pytest.mark.timeout(100)
async def test_on_postgresql(tmp_path: Path, postgres: PostgresServer, postgres_schema: str) -> None:
    async with chaos_cluster(
        tmp_path, postgres=postgres, database=postgres_schema, roles=ROLES, prepare=make_rows
    ) as cluster:
        await _replicas_stand_in_for_each_other(cluster)


async def _replicas_stand_in_for_each_other(cluster: ChaosCluster) -> None:
    orders = 0
    async with (
        EventoBundle("web", components=[OrderInvoker], server=cluster.site.gateway, cluster=CLUSTER) as web,
        store_of(cluster.site, read_only=True) as store,
    ):

        async def place_and_wait() -> None:
            """Place orders and wait until all three consumers have done all that follows."""
            nonlocal orders
            for number in range(orders, orders + EACH):
                await web.commands.send(OrderPlaceCommand(f"ORD_{number}", "ann"), message_id=f"place-{number}")
            orders += EACH
            expected = _events_of(orders)
            async with asyncio.timeout(30):
                while await store.head() < expected or len(await rows(cluster.site)) < expected:
                    await asyncio.sleep(0.05)
                while len(seen(Path(cluster.site.folder))) < expected:
                    await asyncio.sleep(0.05)

        for name in ("watch-1", "watch-2"):  # one of the two is in charge
            placing = asyncio.create_task(place_and_wait())
            await asyncio.sleep(0.02)
            await _pause(cluster, name)
            await placing
            cluster.members[name].go_on()
        placing = asyncio.create_task(place_and_wait())
        await asyncio.sleep(0.02)
        await cluster.members["watch-1"].kill()  # in charge since the other one stood still
        await placing
        for name in ("watch-2", "orders"):
            await cluster.members[name].stop()
        assert (await store.verify()).ok
        events = await all_events(store)
    assert _stories(events) == {f"ORD_{number}": _story(number) for number in range(orders)}
    assert await rows(cluster.site) == [(event.position, event.name) for event in events]
    assert seen(Path(cluster.site.folder)) == {event.position for event in events}


async def _pause(cluster: ChaosCluster, name: str) -> None:
    """Pause a replica at any moment, but on SQLite: there, nobody can write while one stands still in a transaction."""
    cluster.members[name].pause()
    while cluster.site.is_locked:
        cluster.members[name].go_on()
        await asyncio.sleep(0.003)
        cluster.members[name].pause()


def _story(number: int) -> list[str]:
    """What becomes of an order: the saga's commands take effect once."""
    story = ["OrderPlacedEvent", "ItemAddedEvent", "ItemAddedEvent", "PaymentCapturedEvent"]
    return [*story, "OrderCancelledEvent"] if number % 3 == 0 else story


def _events_of(orders: int) -> int:
    return sum(len(_story(number)) for number in range(orders))


def _stories(events: list[EventRecord]) -> dict[str, list[str]]:
    stories: dict[str, list[str]] = defaultdict(list)
    for event in events:
        stories[(event.aggregate_id or "").removeprefix("PAY_")].append(event.name)
    return dict(stories)
