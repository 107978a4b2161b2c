"""The registry over NATS: acknowledged, and nobody speaks for another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import nats as nats_py
import pytest
from nats_server import NatsServer, nats_server
from waiting import eventually, turns

from evento.errors import AuthenticationError, DefinitionError, PayloadError, error_from_data
from evento.gateway.nats import NatsConnection
from evento.gateway.nats.calls import Answer, encode
from evento.gateway.nats.registry import REGISTRY, CatalogueCall, ViewCall
from evento.messages.registration import BundleDescription, Register, Session
from evento.server.registry import RegistryDatabase, RegistryService


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with nats_server(tmp_path) as running:
        yield running


def connecting(nats: NatsServer, user: str, instance: str) -> NatsConnection:
    return NatsConnection([nats.url], cluster="test", user=user, instance=instance)


@pytest.fixture
async def service(nats: NatsServer, tmp_path: Path) -> AsyncIterator[RegistryService]:
    async with (
        connecting(nats, "evento-server", "s1") as connection,
        RegistryDatabase(f"sqlite+aiosqlite:///{tmp_path / 'registry.db'}", cluster="test") as database,
        RegistryService(connection, database) as running,
    ):
        yield running


def subject_of(connection: NatsConnection, operation: str) -> str:
    """Where a bundle sends an operation: the only place where NATS lets it."""
    if operation in ("view", "catalogue"):
        return connection.subjects.registry(operation)
    owner = connection.subjects.inbox_owner(f"{connection._inbox.decode()}1")
    assert owner is not None
    return connection.subjects.registration(owner[0], operation)


async def ask(connection: NatsConnection, operation: str, call: msgspec.Struct) -> Any:
    deadline = asyncio.get_running_loop().time() + 10
    data = await connection.request(subject_of(connection, operation), encode(call), deadline)
    answer = REGISTRY[operation].decode_answer(data)
    if answer.error is not None:
        raise error_from_data(answer.error)
    return answer.value


async def test_a_bundle_registers_beats_and_leaves(nats: NatsServer, service: RegistryService) -> None:
    async with connecting(nats, "orders", "i1") as connection:
        about = BundleDescription("orders", commands=("OrderPlace",), description="Orders of the shop")
        registered = await ask(connection, "register", Register(about, "i1"))
        assert registered.lease > 0
        assert registered.time > 0
        for operation in ("enable", "heartbeat", "disable", "heartbeat"):
            assert (await ask(connection, operation, registered.session)).session == registered.session
        [seen] = await ask(connection, "view", ViewCall())
        assert not seen.enabled
        assert await ask(connection, "catalogue", CatalogueCall()) == [about]
        assert await ask(connection, "leave", registered.session)


@pytest.mark.parametrize("operation", ["register", "enable", "disable", "heartbeat", "leave"])
async def test_nobody_speaks_for_another(nats: NatsServer, service: RegistryService, operation: str) -> None:
    async with connecting(nats, "orders", "i1") as orders, connecting(nats, "thief", "i2") as thief:
        registered = await ask(orders, "register", Register(BundleDescription("orders"), "i1", enabled=True))
        for session in (registered.session, Session("thief", "i1", 1), Session("orders", "i2", 1)):
            about = BundleDescription(session.bundle_id)
            call = Register(about, session.instance_id) if operation == "register" else session
            with pytest.raises(AuthenticationError, match="under its own name and instance only"):
                await ask(thief, operation, call)
        [seen] = await ask(orders, "view", ViewCall())
        assert (seen.bundle_id, seen.enabled) == ("orders", True)
        await ask(orders, "heartbeat", registered.session)
        assert service.refused == 3


async def test_two_bundles_with_one_name_are_told_both(nats: NatsServer, service: RegistryService) -> None:
    async with connecting(nats, "orders", "i1") as orders, connecting(nats, "shop", "i2") as shop:
        await ask(orders, "register", Register(BundleDescription("orders", commands=("Place",)), "i1"))
        with pytest.raises(DefinitionError, match=r"'orders'.*'shop'"):
            await ask(shop, "register", Register(BundleDescription("shop", commands=("Place",)), "i2"))


async def test_what_cannot_be_read_is_refused(nats: NatsServer, service: RegistryService) -> None:
    async with connecting(nats, "orders", "i1") as connection:
        deadline = asyncio.get_running_loop().time() + 10
        for data in (b"", b"\xc1", b"[]", encode(ViewCall())):
            answer = msgspec.msgpack.decode(
                await connection.request(subject_of(connection, "register"), data, deadline), type=Answer
            )
            assert answer.error is not None
            assert isinstance(error_from_data(answer.error), PayloadError)


async def test_a_call_without_an_inbox_to_answer_to_changes_nothing(nats: NatsServer, service: RegistryService) -> None:
    async with connecting(nats, "orders", "i1") as connection:
        about = Register(BundleDescription("orders"), "i1")
        connection.publish(subject_of(connection, "register"), encode(about))
        assert await ask(connection, "view", ViewCall()) == []


async def test_a_subject_of_ones_own_and_the_inbox_of_another_change_nothing(
    nats: NatsServer, service: RegistryService
) -> None:
    """NATS does not check the reply subject: a bundle may give another's, and may send on its own subject alone."""
    async with connecting(nats, "orders", "i1") as orders, await nats_py.connect(nats.url) as thief:
        call = encode(Register(BundleDescription("orders"), "i1"))
        reply = orders.subjects.inbox("orders", "i1") + ".7"
        await thief.publish(orders.subjects.registration("thief", "register"), call, reply=reply)
        await thief.flush()
        await eventually(lambda: service.refused > 0)

        assert await ask(orders, "view", ViewCall()) == []


async def test_a_catalogue_of_many_bundles_comes_in_parts(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'registry.db'}"
    async with (
        nats_server(tmp_path, config="max_payload: 65536\n") as nats,
        connecting(nats, "evento-server", "s1") as connection,
        RegistryDatabase(url, cluster="test") as database,
        RegistryService(connection, database),
        connecting(nats, "admin", "a1") as admin,
    ):
        for number in range(10):
            about = BundleDescription(f"bundle-{number}", detail="x" * 20_000)
            await database.register(Register(about, f"i{number}"))
        found: list[str] = []
        while part := await ask(admin, "catalogue", CatalogueCall(found[-1] if found else "")):
            found += [about.bundle_id for about in part]
        assert found == [f"bundle-{number}" for number in range(10)]


async def test_leaving_that_is_cancelled_leaves_nothing_behind(nats: NatsServer, tmp_path: Path) -> None:
    async with (
        connecting(nats, "evento-server", "s1") as connection,
        RegistryDatabase(f"sqlite+aiosqlite:///{tmp_path / 'registry.db'}", cluster="test") as database,
        connecting(nats, "admin", "a1") as admin,
    ):
        service = await RegistryService(connection, database).__aenter__()
        async with database._gate:  # nothing gets on
            asking = asyncio.ensure_future(ask(admin, "view", ViewCall()))
            await eventually(lambda: len(service._tasks) > 0)
            leaving = asyncio.ensure_future(service.__aexit__())
            await turns()
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            assert not service._tasks
            asking.cancel()
