"""Who lives, and who handles what: one instance one session, one name one bundle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from waiting import eventually

from evento.errors import (
    AuthenticationError,
    DefinitionError,
    NotFound,
    PayloadError,
    RequestTimeout,
    SchemaTooNew,
    Stopped,
    StoreUnavailable,
)
from evento.messages.registration import BundleDescription, Register, Session
from evento.server.registry import RegistryDatabase
from evento.server.registry.schema import schema_version


def register(
    bundle: str = "orders", instance: str = "i1", *, commands: tuple[str, ...] = ("OrderPlace",), version: int = 1
) -> Register:
    return Register(BundleDescription(bundle, version=version, commands=commands), instance, host="here", pid=1)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'registry.db'}"


@pytest.fixture
async def registry(url: str) -> AsyncIterator[RegistryDatabase]:
    async with RegistryDatabase(url, cluster="test", server="node-1") as database:
        yield database


async def test_an_instance_is_seen_from_its_registration_to_its_leave(registry: RegistryDatabase) -> None:
    registered = await registry.register(register())
    [seen] = await registry.view()
    assert (seen.bundle_id, seen.instance_id, seen.version, seen.enabled) == ("orders", "i1", 1, False)
    assert (seen.host, seen.pid, seen.server) == ("here", 1, "node-1")
    assert 0 <= seen.heartbeat_age < 60
    await registry.beat(registered.session, enabled=True)
    assert [seen.enabled for seen in await registry.view("orders")] == [True]
    assert await registry.view("others") == []
    assert await registry.leave(registered.session)
    assert await registry.view() == []


async def test_registering_again_is_a_new_session_and_the_old_one_is_void(registry: RegistryDatabase) -> None:
    first = await registry.register(register())
    second = await registry.register(register())
    assert second.session.number > first.session.number
    with pytest.raises(NotFound, match="register it again"):
        await registry.beat(first.session)
    assert not await registry.leave(first.session)
    assert len(await registry.view()) == 1
    await registry.beat(second.session)


async def test_a_late_leave_does_not_remove_a_successor(registry: RegistryDatabase) -> None:
    old = await registry.register(register(instance="i1"))
    await registry.register(register(instance="i2"))
    await registry.leave(old.session)
    assert [seen.instance_id for seen in await registry.view()] == ["i2"]


async def test_replicas_share_their_names(registry: RegistryDatabase) -> None:
    await registry.register(register(instance="i1"))
    await registry.register(register(instance="i2"))
    assert len(await registry.view("orders")) == 2


async def test_a_name_that_a_living_bundle_handles_is_refused_to_another(registry: RegistryDatabase) -> None:
    await registry.register(register())
    with pytest.raises(DefinitionError, match=r"'OrderPlace' is handled by the bundle 'orders'.*'shop'"):
        await registry.register(register("shop", "i2"))
    assert [seen.bundle_id for seen in await registry.view()] == ["orders"]
    await registry.register(register("shop", "i2", commands=("ShopOpen",)))


async def test_a_name_moves_to_another_bundle_when_nobody_handles_it_any_more(registry: RegistryDatabase) -> None:
    orders = await registry.register(register())
    await registry.leave(orders.session)
    await registry.register(register("shop", "i2"))
    with pytest.raises(DefinitionError):
        await registry.register(register(instance="i3"))


async def test_what_its_sender_gave_up_is_not_done(registry: RegistryDatabase) -> None:
    now = await registry.time()
    session = (await registry.register(msgspec.structs.replace(register(), deadline=now + 60_000_000))).session
    for late in (
        registry.register(msgspec.structs.replace(register(), enabled=True, deadline=now - 1)),
        registry.beat(session, enabled=True, deadline=now - 1),
        registry.leave(session, deadline=now - 1),
    ):
        with pytest.raises(RequestTimeout, match="gave up") as refused:
            await late
        assert refused.value.definite
        assert refused.value.data["time"] >= now

    assert [seen.enabled for seen in await registry.view()] == [False]
    await registry.beat(session, deadline=now + 60_000_000)


async def test_an_instance_that_has_left_does_not_come_back(registry: RegistryDatabase) -> None:
    session = (await registry.register(register())).session
    assert await registry.leave(session)
    with pytest.raises(Stopped, match="i1 of 'orders' has left"):
        await registry.register(register())
    with pytest.raises(NotFound):
        await registry.beat(session, enabled=True)
    assert not await registry.leave(session)
    assert await registry.view() == []


async def test_a_name_that_the_newer_version_gave_up_is_free_once_the_older_has_gone(
    registry: RegistryDatabase,
) -> None:
    old = await registry.register(register(instance="i1"))
    await registry.register(register(instance="i2", commands=(), version=2))
    with pytest.raises(DefinitionError):
        await registry.register(register("shop", "i3"))
    await registry.leave(old.session)
    await registry.register(register("shop", "i3"))


async def test_commands_and_queries_have_names_of_their_own(registry: RegistryDatabase) -> None:
    await registry.register(register())
    await registry.register(Register(BundleDescription("views", queries=("OrderPlace",)), "i2"))


async def test_the_instance_of_another_bundle_cannot_be_taken(registry: RegistryDatabase) -> None:
    await registry.register(register())
    with pytest.raises(AuthenticationError, match="belongs to the bundle 'orders'"):
        await registry.register(register("thief", "i1", commands=()))


async def is_empty(registry: RegistryDatabase) -> bool:
    return await registry.view() == []


async def test_who_does_not_beat_is_gone(url: str) -> None:
    async with RegistryDatabase(url, cluster="test", lease=0.05) as registry:
        registered = await registry.register(register())
        await eventually(lambda: is_empty(registry))
        with pytest.raises(NotFound, match="register it again"):  # who was only slow registers again
            await registry.beat(registered.session, enabled=True)
        async with RegistryDatabase(url, cluster="test", lease=60) as patient:
            again = await patient.register(register())
            await patient.beat(again.session)


async def test_who_comes_back_late_does_not_share_a_name_with_its_new_owner(url: str) -> None:
    async with RegistryDatabase(url, cluster="test", lease=0.05) as registry:
        paused = await registry.register(register())
        await eventually(lambda: is_empty(registry))
        async with RegistryDatabase(url, cluster="test", lease=60) as patient:
            await patient.register(register("shop", "i2"))
            with pytest.raises(NotFound):
                await patient.beat(paused.session)
            with pytest.raises(DefinitionError, match="'shop', which runs"):
                await patient.register(register())
            assert [seen.bundle_id for seen in await patient.view()] == ["shop"]


@pytest.mark.parametrize(
    "wrong",
    [
        register("b" * 241),
        register(""),
        register(instance="i" * 241),
        register(commands=("Order\0",)),
        register(commands=("O" * 241,)),
        register(version=2**40),
        msgspec.structs.replace(register(), pid=2**64 - 1),
        msgspec.structs.replace(register(), host="a\0b"),
    ],
)
async def test_what_tables_cannot_hold_is_refused(registry: RegistryDatabase, wrong: Register) -> None:
    with pytest.raises(PayloadError):
        await registry.register(wrong)
    assert await registry.view() == []


async def test_the_catalogue_keeps_what_bundles_told_and_the_newest_version_counts(registry: RegistryDatabase) -> None:
    registered = await registry.register(register(version=2, commands=("OrderPlace", "OrderCancel")))
    await registry.register(register(instance="i2", version=1))
    await registry.leave(registered.session)
    [described] = await registry.catalogue()
    assert described.version == 2
    assert described.commands == ("OrderPlace", "OrderCancel")


async def test_clusters_share_a_database_and_nothing_else(registry: RegistryDatabase, url: str) -> None:
    await registry.register(register())
    async with RegistryDatabase(url, cluster="other") as other:
        assert await other.view() == []
        await other.register(register("shop", "i1"))
        with pytest.raises(NotFound):
            await other.beat(Session("orders", "i1", 1))


async def test_two_servers_decide_together(registry: RegistryDatabase, url: str) -> None:
    async with RegistryDatabase(url, cluster="test", server="node-2") as second:
        outcomes = await asyncio.gather(
            registry.register(register("orders", "i1")),
            second.register(register("shop", "i2")),
            return_exceptions=True,
        )
        assert len([one for one in outcomes if isinstance(one, DefinitionError)]) == 1
        assert len(await second.view()) == 1


async def test_a_newer_schema_is_refused(registry: RegistryDatabase, url: str) -> None:
    async with registry._transaction() as connection:
        await connection.execute(schema_version.update().values(version=99))
    with pytest.raises(SchemaTooNew, match="99"):
        await RegistryDatabase(url, cluster="test").__aenter__()


async def test_a_database_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="nowhere"):
        await RegistryDatabase(f"sqlite+aiosqlite:///{tmp_path}/nowhere/r.db", cluster="test").__aenter__()


async def test_a_host_clock_that_was_set_back_between_two_runs_keeps_no_dead_bundle_alive(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour = 3600 * 1_000_000_000
    now = time.time_ns
    with monkeypatch.context() as ahead:
        ahead.setattr(time, "time_ns", lambda: now() + hour)
        async with RegistryDatabase(url, cluster="test", lease=0.05) as registry:
            await registry.register(register())
    async with RegistryDatabase(url, cluster="test", lease=60) as registry:
        [seen] = await registry.view()
        assert seen.heartbeat_age < 60
    async with RegistryDatabase(url, cluster="test", lease=0.05) as registry:
        await eventually(lambda: is_empty(registry))
        await registry.register(register("shop", "i2"))


async def test_a_clock_that_is_set_while_it_runs_changes_no_lease(
    registry: RegistryDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered = await registry.register(register())
    now = time.time_ns
    for shift in (-3600, 3600):
        monkeypatch.setattr(time, "time_ns", lambda shift=shift: now() + shift * 1_000_000_000)
        await registry.beat(registered.session)
        [seen] = await registry.view()
        assert seen.heartbeat_age < 60
