"""``evento consumers`` in a cluster: running instances are asked, whichever process they are in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cluster import NAME, Cluster, a_cluster
from shop import OrderAggregate, OrderInvoker, OrderPlaceCommand, OrderPlacedEvent
from waiting import eventually

from evento import EventoBundle, Projector, event_handler
from evento.bundle import administration as served
from evento.gateway.nats.subjects import Subjects

Ask = Callable[..., Awaitable[Any]]


class Moods:
    """What the projector's handler does."""

    def __init__(self) -> None:
        self.broken = True
        self.seen: list[str] = []


class MoodyProjector(Projector, version=2):
    def __init__(self, moods: Moods) -> None:
        self._moods = moods

    @event_handler(retry=0)
    def on_placed(self, event: OrderPlacedEvent) -> None:
        if self._moods.broken:
            raise ValueError("größe is\nmissing")
        self._moods.seen.append(event.order_id)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with a_cluster(tmp_path) as running:
        yield running


@pytest.fixture
def ask(cli: Any, cluster: Cluster) -> Ask:
    """Run a verb of ``evento consumers`` beside the cluster, which is in this event loop."""

    async def run(*argv: str) -> Any:
        return await asyncio.to_thread(lambda: cli("consumers", *argv, "--server", cluster.url, "--cluster", NAME))

    return run


@pytest.fixture
def moods() -> Moods:
    return Moods()


@pytest.fixture
def views(cluster: Cluster, moods: Moods) -> Callable[..., EventoBundle]:
    def make(bundle_id: str = "views") -> EventoBundle:
        poll = timedelta(milliseconds=20)
        return cluster.bundle(bundle_id, [MoodyProjector], injector={Moods: moods}, sss_fetch_delay=poll)

    return make


@pytest.fixture
async def running(cluster: Cluster, views: Callable[..., EventoBundle]) -> AsyncIterator[EventoBundle]:
    """A bundle whose projector has three dead events."""
    async with cluster.bundle("orders", [OrderAggregate]) as orders, views() as bundle:
        for number in range(3):
            await orders.commands.send(OrderPlaceCommand(f"ORD_{number}", "Ann"))
        await bundle.consumers_caught_up(30)
        yield bundle


async def until_state(bundle: EventoBundle, state: str) -> None:
    async def reached() -> bool:
        return (await bundle.consumers.show("MoodyProjector")).state.value == state

    await eventually(reached)


async def test_list_and_show_are_those_of_the_running_instance(ask: Ask, running: EventoBundle) -> None:
    (status,) = (await ask("list", "--json")).objects
    assert (status["bundle"], status["component"], status["version"]) == ("views", "MoodyProjector", 2)
    assert (status["state"], status["position"], status["head"], status["dead"]) == ("running", "3", "3", 3)
    assert (status["lag_events"], status["lag_seconds"]) == (0, 0)
    assert status["last_error"] == "ValueError: größe is\nmissing"
    shown = await ask("show", "MoodyProjector", "--json")
    assert (shown.code, shown.objects) == (0, [status])
    assert "MoodyProjector v2 [*] of views" in (await ask("list")).out


async def test_dead_events_are_listed_page_by_page(
    ask: Ask, running: EventoBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = await ask("dead", "list", "MoodyProjector", "--json")
    assert [event["position"] for event in listed.objects] == ["1", "2", "3"]
    monkeypatch.setattr("evento.cli.cluster_consumers._PAGE", 1)
    assert await ask("dead", "list", "MoodyProjector", "--json") == listed
    monkeypatch.setattr("evento.cli.cluster_consumers._PAGE", 500)
    monkeypatch.setattr(served, "_OVERHEAD", 10**9)  # a page holds no more than one event
    assert await ask("dead", "list", "MoodyProjector", "--json") == listed
    limited = await ask("dead", "list", "MoodyProjector", "--limit", "2", "--after", "1", "--key", "ORD_2", "--json")
    assert [event["position"] for event in limited.objects] == ["3"]
    monkeypatch.setattr(served, "_MAX_TEXT", 5)  # what errors made long is cut
    (first,) = (await ask("dead", "list", "MoodyProjector", "--limit", "1", "--json")).objects
    assert (first["error_message"], first["traceback"]) == ("größe...", "...sing\n")


async def test_dead_events_are_retried_and_discarded(ask: Ask, running: EventoBundle, moods: Moods) -> None:
    moods.broken = False
    (answer,) = (await ask("retry", "MoodyProjector", "1", "--json")).objects
    assert answer == {
        "consumer": "MoodyProjector v2 [*] of views",
        "done": "marked for a retry",
        "events": 1,
        "running": True,
    }
    await running.consumers_caught_up(30)
    assert moods.seen == ["ORD_0"]
    (answer,) = (await ask("discard", "MoodyProjector", "--key", "ORD_1", "--yes", "--json")).objects
    assert (answer["done"], answer["events"]) == ("discarded", 1)
    assert [event.position for event in await running.consumers.dead("MoodyProjector")] == [3]


async def test_a_consumer_is_paused_and_resumed(ask: Ask, running: EventoBundle) -> None:
    assert (await ask("pause", "MoodyProjector")).out.startswith("paused: MoodyProjector v2 [*] of views (the running")
    await until_state(running, "paused")
    assert (await ask("resume", "MoodyProjector")).code == 0
    await until_state(running, "running")


async def test_errors_arrive_as_one_line(ask: Ask, running: EventoBundle) -> None:
    result = await ask("retry", "MoodyProjector", "9")
    assert (result.code, len(result.err.splitlines())) == (1, 1)
    assert "has no dead event at position 9" in result.err
    result = await ask("show", "Nobody")
    assert result.code == 1
    assert "there is no consumer Nobody; there are: MoodyProjector v2 [*] of views" in result.err


async def test_consumers_of_several_bundles_are_told_apart(
    ask: Ask, running: EventoBundle, views: Callable[..., EventoBundle]
) -> None:
    async with views("reports"):
        result = await ask("show", "MoodyProjector")
        assert result.code == 1
        assert "of reports" in result.err
        assert "of views" in result.err
        (status,) = (await ask("show", "MoodyProjector", "--bundle", "reports", "--json")).objects
        assert status["bundle"] == "reports"
        assert [line["bundle"] for line in (await ask("list", "--json")).objects] == ["reports", "views"]
        assert [line["bundle"] for line in (await ask("list", "--bundle", "views", "--json")).objects] == ["views"]


async def test_of_two_replicas_the_one_that_works_is_shown(
    ask: Ask, running: EventoBundle, views: Callable[..., EventoBundle]
) -> None:
    async with views() as standby:
        await until_state(standby, "standby")
        (status,) = (await ask("list", "--json")).objects
        assert status["state"] == "running"


async def test_an_instance_that_does_not_answer_is_named(
    ask: Ask, running: EventoBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subjects.instance
    with monkeypatch.context() as patch:  # a bundle that serves no administration
        patch.setattr(
            Subjects,
            "instance",
            lambda self, bundle, *rest: subject(self, bundle if bundle != "orders" else "x", *rest),
        )
        result = await ask("list", "--json")
    assert [line["component"] for line in result.objects] == ["MoodyProjector"]
    assert "of orders on" in result.err
    assert "is not there any more" in result.err


async def test_where_nothing_runs_the_stores_are_named(ask: Ask, cluster: Cluster) -> None:
    result = await ask("list")
    assert result.code == 1
    assert "no bundle runs" in result.err
    assert "--store" in result.err
    async with cluster.bundle("web", [OrderInvoker]):
        assert (await ask("list", "--json")).out == ""
        assert "no instance of views" in (await ask("list", "--bundle", "views")).err


async def test_more_requests_than_an_instance_takes_are_refused(
    ask: Ask, running: EventoBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "MAX_RUNNING", 0)
    result = await ask("list")
    assert result.code == 1
    assert "requests of operators run already" in result.err
