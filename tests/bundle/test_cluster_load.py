"""A cluster under more load than it can bear: goodput stays, nothing expired runs, nothing stalls.

``EVENTO_LOAD_SECONDS`` says how long each load lasts (default: 4), ``EVENTO_LOAD_STRICT=1`` asks for a goodput within
20 % of the peak and for answers within a second of the deadline, for a machine that has nothing else to do.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest
from cluster import Cluster, a_cluster
from resident import resident_bytes
from shop import OrderInvoker
from work import (
    DelegateCommand,
    DelegateService,
    Script,
    WorkAggregate,
    WorkFindQuery,
    WorkLookQuery,
    WorkStartCommand,
    WorkView,
    inside,
)

from evento import (
    EventoBundle,
    EventoError,
    Projection,
    QueryGateway,
    RequestTimeout,
    Service,
    ServiceCommand,
    command_handler,
    query_handler,
)

SECONDS = float(os.environ.get("EVENTO_LOAD_SECONDS", "4"))
STRICT = os.environ.get("EVENTO_LOAD_STRICT") == "1"
GOOD_ENOUGH, LATEST = (0.8, 1.0) if STRICT else (0.5, 5.0)
MAX_GROWTH = 32 * 1024 * 1024
"""Bytes of resident memory that ten times too much may take, in the one process that has all bundles."""
# Handlers so slow that ten times too much costs this machine little: what is measured is admission, not its processors.
PLACES, WORK_SECONDS, PATIENCE = 4, 0.2, 2.5
CAPACITY = PLACES / WORK_SECONDS


class ToilCommand(ServiceCommand[None]):
    number: int


class Toil:
    """When each number was begun, and how many were done."""

    def __init__(self) -> None:
        self.begun: dict[int, float] = {}


class ToilService(Service):
    def __init__(self, toil: Toil) -> None:
        self._toil = toil

    @command_handler
    async def toil(self, command: ToilCommand) -> None:
        assert command.number not in self._toil.begun, "it is handled twice"
        self._toil.begun[command.number] = asyncio.get_running_loop().time()
        await asyncio.sleep(WORK_SECONDS)


class FindProjection(Projection):
    @query_handler
    def find(self, query: WorkFindQuery) -> WorkView:
        return WorkView(query.work_id)


class LookProjection(Projection):
    @query_handler
    async def look(self, query: WorkLookQuery, queries: QueryGateway) -> WorkView:
        return await queries.query(WorkFindQuery(query.work_id))


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with a_cluster(tmp_path) as running:
        yield running


class Load:
    """Sends commands and counts what comes of them."""

    def __init__(self, bundle: EventoBundle, handling: EventoBundle) -> None:
        self._bundle = bundle
        self._handling = inside(handling)
        self._number = 0
        self.outcomes: Counter[str] = Counter()
        self.deadlines: dict[int, float] = {}
        self.late = 0.0
        self.most_waiting = 0

    async def send(self) -> None:
        """Send one."""
        loop = asyncio.get_running_loop()
        self._number += 1
        deadline = self.deadlines[self._number] = loop.time() + PATIENCE
        try:
            await self._bundle.commands.send(ToilCommand(self._number), timeout=PATIENCE)
            self.outcomes["done"] += 1
        except EventoError as error:
            told = error.definite or isinstance(error, RequestTimeout)
            self.outcomes[type(error).__name__ if told else "unknown"] += 1
        self.late = max(self.late, loop.time() - deadline)
        self.most_waiting = max(self.most_waiting, len(self._handling._admission._waiting))

    async def closed(self, callers: int) -> float:
        """Let callers send, each after its answer; return how many commands a second were done."""
        loop = asyncio.get_running_loop()
        end = loop.time() + SECONDS

        async def caller() -> None:
            while loop.time() < end:
                await self.send()

        return await self._measured(asyncio.gather(*(caller() for _ in range(callers))))

    async def open(self, rate: float) -> float:
        """Send at a rate, whatever the answers are; return how many commands a second were done."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        sent = 0

        async def sending() -> None:
            nonlocal sent
            async with asyncio.TaskGroup() as group:
                while (now := loop.time()) < began + SECONDS:
                    while sent < (now - began) * rate:
                        group.create_task(self.send())
                        sent += 1
                    await asyncio.sleep(0.002)  # the pace of what is sent

        return await self._measured(sending())

    async def _measured(self, work: Awaitable[object]) -> float:
        loop = asyncio.get_running_loop()
        began, before = loop.time(), self.outcomes["done"]
        await work
        return (self.outcomes["done"] - before) / (loop.time() - began)


async def test_ten_times_too_much_leaves_the_goodput_as_it_is(cluster: Cluster) -> None:
    toil = Toil()
    async with (
        cluster.bundle("toil", [ToilService], injector={Toil: toil}, max_concurrent_handlers=PLACES) as handling,
        cluster.bundle("web", [OrderInvoker]) as web,
    ):
        load = Load(web, handling)
        peak = await load.closed(2 * PLACES)
        load.outcomes.clear()
        before = resident_bytes()
        goodput = await load.open(10 * CAPACITY)
        growth = resident_bytes() - before
        told = f"peak {peak:.0f}/s, under overload {goodput:.0f}/s, latest {load.late:.2f} s after its deadline"
        print(f"{told}, {growth / 2**20:.1f} MiB more, {dict(load.outcomes)}")  # noqa: T201
        assert goodput >= GOOD_ENOUGH * peak
        assert load.outcomes["Overloaded"] > load.outcomes["RequestTimeout"]
        assert load.outcomes.keys() <= {"done", "Overloaded", "RequestTimeout"}
        assert load.late < LATEST
        assert growth < MAX_GROWTH
        assert load.most_waiting <= CAPACITY * PATIENCE
    assert all(begun < load.deadlines[number] for number, begun in toil.begun.items())


async def test_200_handlers_that_each_send_to_another_bundle_do_not_wait_for_each_other(cluster: Cluster) -> None:
    script = Script()
    few = {"max_concurrent_handlers": 8}
    loop = asyncio.get_running_loop()
    took: list[float] = []
    async with (
        cluster.bundle("working", [WorkAggregate], injector={Script: script}, **few),
        cluster.bundle("delegating", [DelegateService], **few),
        cluster.bundle("finding", [FindProjection], **few),
        cluster.bundle("looking", [LookProjection], **few),
        cluster.bundle("web", [OrderInvoker]) as web,
    ):
        await asyncio.gather(*(web.commands.send(WorkStartCommand(f"W_{number}")) for number in range(20)))

        async def both(number: int) -> None:
            began = loop.time()
            await web.commands.send(DelegateCommand(f"W_{number % 20}", number), timeout=40)
            assert await web.queries.query(WorkLookQuery("W"), timeout=40) == WorkView("W")
            took.append(loop.time() - began)

        await asyncio.gather(*(both(number) for number in range(200)))
    assert sorted(script.begun) == list(range(200))
    print(f"p50 {sorted(took)[100]:.2f} s, p99 {sorted(took)[198]:.2f} s")  # noqa: T201
    assert sorted(took)[198] < 30
