"""A bundle's own requests stay in its process; others reach its handlers from enable to disable."""

from __future__ import annotations

import asyncio

import pytest

from evento.gateway.bus import RequestHandler
from evento.gateway.local_first import LocalFirstBus
from evento.messages import Reply, Request
from evento.testing.conformance.message_bus import request_of

NAMES = ("A", "B", "C")


class Cluster:
    """The bus of a cluster: each subscription takes a turn, from ``first_served`` on only when it may."""

    def __init__(self) -> None:
        self.served: set[str] = set()
        self.asked: list[str] = []
        self.first_served = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def request(self, request: Request, deadline: float) -> Reply:
        self.asked.append(request.name)
        return Reply(view=b"far")

    async def serve(self, kind: str, name: str, handler: RequestHandler) -> None:
        self.served.add(name)
        self.first_served.set()
        await self.may_go_on.wait()

    async def withdraw(self, kind: str, name: str) -> None:
        await asyncio.sleep(0)
        self.served.discard(name)


async def near(request: Request, deadline: float) -> Reply:
    return Reply(view=b"near")


@pytest.fixture
async def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
async def bus(cluster: Cluster) -> LocalFirstBus:
    bus = LocalFirstBus(cluster)
    for name in NAMES:
        await bus.serve("command", name, near)
    return bus


async def test_own_requests_stay_here_whether_it_is_enabled_or_not(bus: LocalFirstBus, cluster: Cluster) -> None:
    deadline = asyncio.get_running_loop().time() + 5
    for change in (bus.enable, bus.disable, bus.enable):
        assert (await bus.request(request_of("A"), deadline)).view == b"near"
        await change()
    assert (await bus.request(request_of("D"), deadline)).view == b"far"
    assert cluster.asked == ["D"]


async def test_others_reach_the_handlers_from_enable_to_disable(bus: LocalFirstBus, cluster: Cluster) -> None:
    assert cluster.served == set()
    await bus.enable()
    assert cluster.served == set(NAMES)
    await bus.serve("command", "D", near)
    assert "D" in cluster.served
    await bus.withdraw("command", "D")
    await bus.disable()
    await bus.disable()
    assert cluster.served == set()


async def test_who_is_disabled_while_it_is_enabled_is_reached_by_nobody(bus: LocalFirstBus, cluster: Cluster) -> None:
    cluster.may_go_on.clear()
    enabling = asyncio.ensure_future(bus.enable())
    await cluster.first_served.wait()
    await bus.disable()
    cluster.may_go_on.set()
    await enabling
    assert cluster.served == set()
