"""The same components in several bundles, over a real NATS server: what a user sees is what one process gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, a_cluster
from registries import forget
from shop import (
    ItemAddCommand,
    ItemAddedEvent,
    Ledger,
    OrderAggregate,
    OrderCancelCommand,
    OrderFindQuery,
    OrderInvoker,
    OrderPlaceCommand,
    OrderPlacedEvent,
    OrderProjection,
    OrderProjector,
    Orders,
    OrderSearchQuery,
    PaymentCaptureCommand,
    PaymentService,
    TransferCommand,
    TransferService,
)
from waiting import eventually

from evento import (
    AggregateDeleted,
    AggregateNotInitialized,
    CommandGateway,
    CommandMessage,
    CommandRejected,
    DefinitionError,
    EventoBundle,
    HandlerNotFound,
    NotFound,
    Observer,
    Service,
    ServiceCommand,
    ServiceEvent,
    StoreUnavailable,
    command_handler,
    event_handler,
)
from evento.bundle import running
from evento.state_store import EventFilter

PATIENT = 25.0
"""Seconds to wait for a handler, where a test takes it away: what is promised is that it is waited for, not how soon it
is back on a busy machine."""


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with a_cluster(tmp_path) as running:
        yield running


@pytest.fixture
async def commanding(cluster: Cluster) -> AsyncIterator[EventoBundle]:
    async with cluster.bundle("orders", [OrderAggregate, TransferService]) as bundle:
        yield bundle


@pytest.fixture
async def asking(cluster: Cluster) -> AsyncIterator[EventoBundle]:
    orders = Orders()
    async with cluster.bundle("views", [OrderProjector, OrderProjection], injector={Orders: orders}) as bundle:
        yield bundle


@pytest.fixture
async def web(cluster: Cluster, commanding: EventoBundle, asking: EventoBundle) -> AsyncIterator[EventoBundle]:
    """A bundle that handles nothing itself."""
    async with cluster.bundle("web", [OrderInvoker], packages=[], handler_grace=PATIENT) as bundle:
        yield bundle


async def test_commands_and_queries_reach_other_bundles(web: EventoBundle) -> None:
    invoker = web.invoker(OrderInvoker)
    assert await invoker.place("ORD_1", "Ann", user="ann") == "ORD_1"
    message = await web.commands.send_message(ItemAddCommand("ORD_1", "apple", 3))
    assert message is not None
    assert message.payload == ItemAddedEvent("ORD_1", "apple", 3)
    assert (message.position, message.version) == (2, 2)
    view = await web.queries.query(OrderFindQuery("ORD_1"), at_least=message.position)
    assert (view.customer, view.total) == ("Ann", 3)
    assert [one.order_id for one in await web.queries.query(OrderSearchQuery("Ann"))] == ["ORD_1"]


async def test_errors_arrive_as_themselves(web: EventoBundle) -> None:
    with pytest.raises(CommandRejected, match="needs a customer") as caught:
        await web.commands.send(OrderPlaceCommand("ORD_1", ""))
    assert caught.value.data == {"field": "customer"}
    with pytest.raises(AggregateNotInitialized):
        await web.commands.send(ItemAddCommand("ORD_1", "apple"))
    with pytest.raises(NotFound):
        await web.queries.query(OrderFindQuery("ORD_9"))
    await web.commands.send(OrderPlaceCommand("ORD_1", "Ann"))
    await web.commands.send(OrderCancelCommand("ORD_1"))
    with pytest.raises(AggregateDeleted):
        await web.commands.send(ItemAddCommand("ORD_1", "apple"))


async def test_metadata_and_causes_flow_through_the_cluster(cluster: Cluster, web: EventoBundle) -> None:
    await web.invoker(OrderInvoker).place("ORD_1", "Ann", user="ann")
    [record] = (await cluster.store.search(EventFilter())).events
    assert b'"user":"ann"' in record.metadata
    assert record.causation_id == record.command_id
    assert record.correlation_id != record.command_id  # the invocation began it


async def test_a_resend_gets_the_first_outcome(cluster: Cluster, web: EventoBundle) -> None:
    first = await web.commands.send_message(OrderPlaceCommand("ORD_1", "Ann"), message_id="m-1")
    again = await web.commands.send_message(OrderPlaceCommand("ORD_1", "Ann"), message_id="m-1")
    assert first is not None
    assert again is not None
    assert first.message_id == again.message_id
    assert await cluster.store.head() == 1


async def test_handlers_send_commands_on(web: EventoBundle, cluster: Cluster) -> None:
    for order in ("ORD_1", "ORD_2"):
        await web.commands.send(OrderPlaceCommand(order, "Ann"))
    await web.commands.send(TransferCommand("ORD_1", "ORD_2", "apple"))
    assert await cluster.store.head() == 4


async def test_many_callers_at_once(web: EventoBundle, cluster: Cluster) -> None:
    await asyncio.gather(*(web.commands.send(OrderPlaceCommand(f"ORD_{n}", "Ann")) for n in range(20)))
    await asyncio.gather(*(web.commands.send(ItemAddCommand(f"ORD_{n % 20}", "apple")) for n in range(400)))
    assert await cluster.store.head() == 420
    assert (await cluster.store.verify()).ok


async def test_two_replicas_share_an_aggregate_and_lose_nothing(cluster: Cluster) -> None:
    async with (
        cluster.bundle("orders", [OrderAggregate]) as first,
        cluster.bundle("orders", [OrderAggregate]) as second,
        cluster.bundle("web", [OrderInvoker]) as web,
    ):
        await web.commands.send(OrderPlaceCommand("ORD_1", "Ann"))
        senders = (first, second, web)
        await asyncio.gather(*(senders[n % 3].commands.send(ItemAddCommand("ORD_1", "apple")) for n in range(90)))
        story = await cluster.store.story("ORD_1")
        assert story.version == 91
        assert (await cluster.store.verify()).ok


async def test_a_locked_service_runs_alone_across_replicas(cluster: Cluster) -> None:
    ledger = Ledger()
    injector = {Ledger: ledger}
    async with (
        cluster.bundle("payments", [PaymentService], injector=injector),
        cluster.bundle("payments", [PaymentService], injector=injector),
        cluster.bundle("web", [OrderInvoker]) as web,
    ):
        events = await asyncio.gather(*(web.commands.send(PaymentCaptureCommand("ORD_1", n)) for n in range(20)))
        assert ledger.overlaps == 0
        assert len({event.token for event in events if event is not None}) == 20


async def test_a_bundle_that_is_not_there_is_waited_for(cluster: Cluster) -> None:
    async with cluster.bundle("web", [OrderInvoker], handler_grace=PATIENT) as web:
        waiting = asyncio.ensure_future(web.commands.send(OrderPlaceCommand("ORD_1", "Ann")))
        await asyncio.sleep(0)
        async with cluster.bundle("orders", [OrderAggregate]):
            assert isinstance(await waiting, OrderPlacedEvent)


async def test_nobody_is_a_definite_answer(cluster: Cluster) -> None:
    async with cluster.bundle("web", [OrderInvoker], handler_grace=0.1) as web:
        with pytest.raises(HandlerNotFound, match="OrderPlaceCommand") as caught:
            await web.commands.send(OrderPlaceCommand("ORD_1", "Ann"))
        assert caught.value.definite


async def test_two_bundles_with_one_command_are_refused_at_the_start(
    cluster: Cluster, commanding: EventoBundle
) -> None:
    with pytest.raises(DefinitionError, match=r"'orders'.*'impostor'"):
        await cluster.bundle("impostor", [OrderAggregate]).start()
    assert isinstance(await commanding.commands.send(OrderPlaceCommand("ORD_1", "Ann")), OrderPlacedEvent)


async def test_instances_are_seen_in_the_registry(cluster: Cluster) -> None:
    bundle = cluster.bundle("orders", [OrderAggregate], version=7)
    async with bundle:
        [seen] = await cluster.registry.view("orders")
        assert (seen.version, seen.enabled) == (7, True)
        [described] = await cluster.registry.catalogue()
        assert "OrderPlaceCommand" in described.commands
        assert "OrderPlacedEvent" in {payload.name for payload in described.payloads}

    async def is_gone() -> bool:
        return not await cluster.registry.view("orders")

    await eventually(is_gone, within=10)  # a stop waits a second for the answer; the lease would last 15


async def test_a_rolling_restart_of_two_replicas_loses_no_request(cluster: Cluster) -> None:
    async with cluster.bundle("web", [OrderInvoker], handler_grace=PATIENT) as web:
        running = [cluster.bundle("orders", [OrderAggregate]) for _ in range(2)]
        for bundle in running:
            await bundle.start()
        await web.commands.send(OrderPlaceCommand("ORD_1", "Ann"))
        ended = asyncio.Event()
        sent = 0

        async def traffic() -> None:
            nonlocal sent
            while not ended.is_set():
                await web.commands.send(ItemAddCommand("ORD_1", "apple", 0))
                sent += 1

        callers = [asyncio.create_task(traffic()) for _ in range(4)]
        for bundle in running:
            await bundle.stop()
            await bundle.start()
        ended.set()
        await asyncio.gather(*callers)
        for bundle in running:
            await bundle.stop()
        assert (await cluster.store.story("ORD_1")).version == sent + 1


async def test_requests_outlive_a_restart_of_the_gateway(cluster: Cluster, web: EventoBundle) -> None:
    await web.commands.send(OrderPlaceCommand("ORD_1", "Ann"))
    waiting = [asyncio.ensure_future(web.commands.send(ItemAddCommand("ORD_1", "apple", 0))) for _ in range(50)]
    await asyncio.sleep(0)
    await cluster.nats.kill()
    await cluster.nats.start()
    await asyncio.gather(*waiting)
    assert (await cluster.store.story("ORD_1")).version == 51


async def test_requests_outlive_a_restart_of_the_server(cluster: Cluster, web: EventoBundle) -> None:
    await web.commands.send(OrderPlaceCommand("ORD_1", "Ann"))
    waiting = [asyncio.ensure_future(web.commands.send(ItemAddCommand("ORD_1", "apple", 0))) for _ in range(50)]
    await asyncio.sleep(0)
    await cluster.stop_server()
    await cluster.start_server()
    await asyncio.gather(*waiting)
    assert (await cluster.store.story("ORD_1")).version == 51
    assert {seen.bundle_id for seen in await cluster.registry.view()} == {"orders", "views", "web"}


class ParcelSentEvent(ServiceEvent):
    parcel: str


class ParcelSendCommand(ServiceCommand[ParcelSentEvent]):
    parcel: str


class ParcelBillCommand(ServiceCommand[None]):
    parcel: str


class ParcelService(Service):
    @command_handler
    async def send(self, command: ParcelSendCommand) -> ParcelSentEvent:
        return ParcelSentEvent(command.parcel)


class Bills:
    def __init__(self) -> None:
        self.attempts: list[tuple[str, int]] = []
        self.paid = asyncio.Event()


class BillingService(Service):
    def __init__(self, bills: Bills) -> None:
        self._bills = bills

    @command_handler
    async def bill(self, command: ParcelBillCommand, message: CommandMessage[ParcelBillCommand]) -> None:
        self._bills.attempts.append((message.message_id, message.attempt))
        await self._bills.paid.wait()


class BillingObserver(Observer, version=1):
    @event_handler(retry=0)
    async def on_sent(self, event: ParcelSentEvent, commands: CommandGateway) -> None:
        await commands.send(ParcelBillCommand(event.parcel), timeout=60)


async def test_an_observer_waits_for_a_service_that_is_stopped_in_the_middle_of_its_command(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "DRAIN_SECONDS", 0.1)
    bills = Bills()
    async with cluster.bundle("parcels", [ParcelService, BillingObserver]) as bundle:
        async with cluster.bundle("billing", [BillingService], injector={Bills: bills}):
            await bundle.commands.send(ParcelSendCommand("P_1"))
            await eventually(lambda: bool(bills.attempts))
        bills.paid.set()
        async with cluster.bundle("billing", [BillingService], injector={Bills: bills}):
            await bundle.consumers_caught_up(timeout=20)
        assert (await bundle.consumers.show("BillingObserver")).dead == 0
    (first, _), (again, attempt) = bills.attempts
    assert first == again
    assert attempt == 2


async def test_a_start_without_a_server_ends_with_a_clear_error(tmp_path: Path) -> None:
    bundle = EventoBundle(
        "web", components=[OrderInvoker], server="nats://127.0.0.1:1", start_timeout=0.3, cluster="test"
    )
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1.*evento server"):
        await bundle.start()
    assert not bundle.is_running


@pytest.mark.parametrize("server", ["nats://", "nats:/x", "nats://a:x", "nats://a,http://b", "nats://user:pw@host"])
async def test_an_address_that_is_none_is_refused(server: str) -> None:
    with pytest.raises(DefinitionError, match="nats://HOST") as caught:
        await EventoBundle("web", components=[OrderInvoker], server=server).start()
    assert "pw" not in str(caught.value)


async def test_a_command_that_another_bundle_took_over_is_handled_by_nobody_else(tmp_path: Path) -> None:
    async with (
        a_cluster(tmp_path, lease=3600) as cluster,  # so that no heartbeat registers it again meanwhile
        cluster.bundle("orders", [OrderAggregate]) as orders,
        cluster.bundle("web", [OrderInvoker]) as web,
    ):
        invoker = web.invoker(OrderInvoker)
        await invoker.place("ORD_1", "Ann")
        backend: Any = orders._running._backend  # type: ignore[union-attr]
        await forget(
            cluster.registry, backend._membership.session
        )  # as if it had been paused for longer than its lease
        async with cluster.bundle("shop", [OrderAggregate], start_timeout=10):
            backend._membership._again.set()
            await eventually(lambda: not backend.bus._enabled)
            await invoker.place("ORD_2", "Ann")  # by the shop
        await eventually(lambda: bool(backend.bus._enabled))
        await invoker.place("ORD_3", "Ann")
