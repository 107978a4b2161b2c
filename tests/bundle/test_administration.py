"""What operators ask an instance: each has a subject of its own, and nothing that is asked can break it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cluster import NAME, Cluster, a_cluster
from shop import OrderProjector, Orders
from waiting import eventually

from evento import EventoBundle
from evento.bundle import administration
from evento.errors import NotFound, Overloaded, PayloadError, error_from_data
from evento.gateway.nats import NatsConnection, NoResponders
from evento.gateway.nats.administration import ADMINISTRATION
from evento.gateway.nats.calls import encode
from evento.messages.consumers import (
    ConsumerCall,
    ConsumerName,
    ConsumersCall,
    DeadEventsCall,
    SelectionCall,
)

PROJECTOR = ConsumerName("views", "OrderProjector", 1, "*")


class Operator:
    """Asks instances, as the administrator does."""

    def __init__(self, connection: NatsConnection, cluster: Cluster) -> None:
        self._connection = connection
        self._cluster = cluster

    async def ask(self, operation: str, call: msgspec.Struct | bytes, *, instance: str | None = None) -> Any:
        """Ask an instance, by default the one that runs; raise the error that it answers."""
        if instance is None:
            [seen] = await self._cluster.registry.view("views")
            instance = seen.instance_id
        subject = self._connection.subjects.instance("views", instance, operation)
        deadline = asyncio.get_running_loop().time() + 10
        data = call if isinstance(call, bytes) else encode(call)
        answer = ADMINISTRATION[operation].decode_answer(await self._connection.request(subject, data, deadline))
        if answer.error is not None:
            raise error_from_data(answer.error)
        return answer.value

    async def becomes(self, state: str, *, instance: str | None = None) -> None:
        """Wait until the projector of an instance is in a state, at the head: a bundle's start does not wait for it."""

        async def settled() -> bool:
            view = await self.ask("consumer", ConsumerCall(PROJECTOR), instance=instance)
            return bool(view.state == state and view.head_reached)

        await eventually(settled)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with a_cluster(tmp_path) as running:
        yield running


@pytest.fixture
async def operator(cluster: Cluster) -> AsyncIterator[Operator]:
    async with NatsConnection([cluster.url], cluster=NAME, user="evento-admin", instance="1") as connection:
        yield Operator(connection, cluster)


@pytest.fixture
async def views(cluster: Cluster) -> AsyncIterator[EventoBundle]:
    async with cluster.bundle("views", [OrderProjector], injector={Orders: Orders()}) as bundle:
        yield bundle


async def test_consumers_are_told_page_by_page(operator: Operator, views: EventoBundle) -> None:
    await operator.becomes("running")
    page = await operator.ask("consumers", ConsumersCall())
    assert [view.name for view in page.consumers] == [PROJECTOR]
    assert not page.more
    assert (await operator.ask("consumers", ConsumersCall(skip=1))).consumers == []
    assert (await operator.ask("consumers", ConsumersCall(skip=-5, limit=-5))).consumers == page.consumers
    view = await operator.ask("consumer", ConsumerCall(PROJECTOR))
    assert (view.name, view.role, view.state) == (PROJECTOR, "Projector", "running")


@pytest.mark.parametrize("operation", ADMINISTRATION)
async def test_what_cannot_be_read_is_refused(operator: Operator, views: EventoBundle, operation: str) -> None:
    for data in (b"", b"\xc1", b"\x81" * 5000, b'{"name":1}', msgspec.msgpack.encode({"name": None, "skip": "x"})):
        with pytest.raises(PayloadError):
            await operator.ask(operation, data)
    await operator.becomes("running")


@pytest.mark.parametrize("operation", ["consumer", "pause", "resume", "dead", "retry", "cancel-retry", "discard"])
async def test_a_consumer_that_is_not_there_is_named(operator: Operator, views: EventoBundle, operation: str) -> None:
    nobody = ConsumerName("views", "OrderProjector", 9, "*")
    calls: dict[str, msgspec.Struct] = {"dead": DeadEventsCall(nobody)}
    for name in ("retry", "cancel-retry", "discard"):
        calls[name] = SelectionCall(nobody, all=True)
    with pytest.raises(NotFound, match=r"OrderProjector v9 .*there are: OrderProjector v1"):
        await operator.ask(operation, calls.get(operation, ConsumerCall(nobody)))


async def test_a_selection_of_nothing_changes_nothing(operator: Operator, views: EventoBundle) -> None:
    with pytest.raises(Exception, match="say which events"):
        await operator.ask("discard", SelectionCall(PROJECTOR))
    assert await operator.ask("discard", SelectionCall(PROJECTOR, all=True)) == 0


async def test_too_many_at_a_time_are_refused(
    operator: Operator, views: EventoBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(administration, "MAX_RUNNING", 0)
    with pytest.raises(Overloaded):
        await operator.ask("consumers", ConsumersCall())


async def test_each_instance_answers_for_itself_and_only_while_it_runs(cluster: Cluster, operator: Operator) -> None:
    async with cluster.bundle("views", [OrderProjector], injector={Orders: Orders()}) as first:
        [one] = await cluster.registry.view("views")
        await operator.becomes("running", instance=one.instance_id)  # it has the lease before the other one asks
        async with cluster.bundle("views", [OrderProjector], injector={Orders: Orders()}):
            for seen in await cluster.registry.view("views"):
                state = "running" if seen.instance_id == one.instance_id else "standby"
                await operator.becomes(state, instance=seen.instance_id)
                [view] = (await operator.ask("consumers", ConsumersCall(), instance=seen.instance_id)).consumers
                assert view.state == state
        assert first.is_running
    with pytest.raises(NoResponders):
        await operator.ask("consumers", ConsumersCall(), instance=one.instance_id)
