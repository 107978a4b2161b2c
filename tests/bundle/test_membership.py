"""A bundle's place in the registry, when servers are away, slow, or have too much to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats_server import NatsServer, nats_server
from registries import forget
from waiting import eventually

from evento.bundle.membership import Membership
from evento.errors import EventoError, Overloaded, StoreUnavailable
from evento.gateway.nats import ClusterClock, NatsConnection
from evento.messages.registration import BundleDescription, Register, Registered
from evento.server.registry import RegistryDatabase, RegistryService


class Registry(RegistryDatabase):
    """A registry that can be held up, and that refuses some registrations at first."""

    refusing = 0
    registrations = 0
    refusals = 0
    last: Register
    may_go: asyncio.Event

    async def register(self, call: Register) -> Registered:
        self.registrations += 1
        self.last = call
        if self.refusing:
            self.refusing -= 1
            raise Overloaded("registry.register was refused: too much to do")
        await self.may_go.wait()
        try:
            return await super().register(call)
        except EventoError:
            self.refusals += 1
            raise


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with nats_server(tmp_path) as running:
        yield running


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    registry = Registry(f"sqlite+aiosqlite:///{tmp_path / 'registry.db'}", cluster="test", lease=30)
    registry.may_go = asyncio.Event()
    registry.may_go.set()
    async with registry:
        yield registry


@pytest.fixture
async def service(nats: NatsServer, registry: Registry) -> AsyncIterator[RegistryService]:
    connection = NatsConnection([nats.url], cluster="test", user="evento-server", instance="s1")
    async with connection, RegistryService(connection, registry) as running:
        yield running


@pytest.fixture
async def connection(nats: NatsServer) -> AsyncIterator[NatsConnection]:
    async with NatsConnection([nats.url], cluster="test", user="orders", instance="i1") as opened:
        yield opened


def member(connection: NatsConnection, *, start_timeout: float | None = 10.0) -> Membership:
    about = BundleDescription("orders", commands=("OrderPlace",))
    return Membership(connection, about, instance_id="i1", clock=ClusterClock(), start_timeout=start_timeout)


async def test_a_registry_that_has_too_much_to_do_is_asked_again(
    connection: NatsConnection, service: RegistryService, registry: Registry
) -> None:
    registry.refusing = 3
    async with member(connection):
        assert len(await registry.view()) == 1


async def test_enabling_without_a_server_ends_with_the_start_timeout(
    connection: NatsConnection, service: RegistryService
) -> None:
    async with member(connection) as membership:
        membership._start_timeout = 0.5  # from now on: entering takes as long as it takes
        await service.__aexit__()
        with pytest.raises(StoreUnavailable, match=r"within 0\.5 s"):
            await asyncio.wait_for(membership.enable(), 10)


async def test_leaving_without_a_server_is_quick(connection: NatsConnection, service: RegistryService) -> None:
    async with asyncio.timeout(8):
        async with member(connection) as membership:
            await membership.enable()
            await service.__aexit__()
            membership._again.set()  # as after a reconnect: it registers, and nobody answers
            await asyncio.sleep(0)
            await membership.disable()


@pytest.mark.parametrize("enabled", [True, False])
async def test_a_slow_registration_does_not_undo_what_was_told_meanwhile(
    connection: NatsConnection, service: RegistryService, registry: Registry, enabled: bool
) -> None:
    async with member(connection) as membership:
        if not enabled:
            await membership.enable()
        registry.may_go.clear()
        membership._again.set()
        await eventually(lambda: registry.registrations >= 2)
        telling = asyncio.ensure_future(membership.enable() if enabled else membership.disable())
        await asyncio.wait({telling}, timeout=2)
        registry.may_go.set()
        await telling

        async def as_told_last() -> bool:
            return [seen.enabled for seen in await registry.view()] == [enabled]

        await eventually(as_told_last, within=10)


async def test_a_registration_whose_sender_gave_up_is_not_done_later(
    connection: NatsConnection, service: RegistryService, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evento.bundle.membership._REQUEST_SECONDS", 0.5)
    registry.may_go.clear()  # as in a server that is paused
    entering = asyncio.ensure_future(member(connection, start_timeout=None).__aenter__())
    await eventually(lambda: registry.registrations == 1)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering

    async def is_late() -> bool:
        return await registry.time() > registry.last.deadline

    assert registry.last.deadline > 0
    await eventually(is_late)
    registry.may_go.set()
    await eventually(lambda: registry.refusals == registry.registrations)
    assert await registry.view() == []


async def test_a_registration_that_was_under_way_when_its_instance_left_revives_nobody(
    connection: NatsConnection, service: RegistryService, registry: Registry
) -> None:
    async with member(connection) as membership:
        await membership.enable()
        registry.may_go.clear()
        membership._again.set()
        await eventually(lambda: registry.registrations == 2)
    assert await registry.view() == []

    registry.may_go.set()
    await eventually(lambda: registry.refusals == 1)
    assert await registry.view() == []


async def test_a_clock_of_the_cluster_that_jumped_is_learned_anew(
    connection: NatsConnection, service: RegistryService, registry: Registry
) -> None:
    async with member(connection) as membership:
        steady = registry._steady
        assert steady is not None
        registry._steady = lambda: steady() + 3_600_000_000
        membership._again.set()
        await eventually(lambda: not membership._again.is_set() and registry.refusals == 1)
        await membership.enable()
        assert [seen.enabled for seen in await registry.view()] == [True]


async def test_who_was_forgotten_registers_again(
    connection: NatsConnection, service: RegistryService, registry: Registry
) -> None:
    async with member(connection) as membership:
        await forget(registry, membership.session)
        await membership.enable()
        assert [seen.enabled for seen in await registry.view()] == [True]


async def test_who_lost_a_name_while_away_takes_no_requests_until_it_is_free(
    connection: NatsConnection, service: RegistryService, registry: Registry
) -> None:
    changes: asyncio.Queue[str] = asyncio.Queue()

    async def refused() -> None:
        changes.put_nowait("refused")

    async def accepted() -> None:
        changes.put_nowait("accepted")

    about = BundleDescription("orders", commands=("OrderPlace",))
    membership = Membership(
        connection, about, instance_id="i1", clock=ClusterClock(), refused=refused, accepted=accepted
    )
    async with membership, asyncio.timeout(20):
        await membership.enable()
        await forget(registry, membership.session)  # as if its lease were over
        other = await registry.register(Register(BundleDescription("shop", commands=("OrderPlace",)), "i2"))
        membership._again.set()
        assert await changes.get() == "refused"
        await registry.leave(other.session)
        assert await changes.get() == "accepted"
        assert [(seen.bundle_id, seen.enabled) for seen in await registry.view()] == [("orders", True)]
    assert changes.empty()
