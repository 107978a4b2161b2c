"""What the way to the server adds: lost connections, servers that come and go, messages with an end to their size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from nats_server import NatsServer, nats_server
from waiting import eventually

from evento.errors import ErrorData, EventoError, Overloaded, StoreMismatch, StoreUnavailable, error_to_data
from evento.gateway.nats import Delivery, NatsConnection
from evento.gateway.nats.calls import Answer, encode
from evento.messages import EventRecord
from evento.server.store import StoreService
from evento.server.store.appending import Appending
from evento.state_store import AlreadyStored, Append, Appended, EventFilter, Lease, Snapshot
from evento.state_store.remote import RemoteStateStore, requests, wire
from evento.state_store.remote import store as store_module
from evento.state_store.sqlite import SqliteStateStore
from evento.testing.conformance.state_store.support import all_found, append, filled, new_event, stored, whole

Connecting = Callable[[str], NatsConnection]


@pytest.fixture
async def remote(connection: NatsConnection) -> AsyncIterator[RemoteStateStore]:
    async with RemoteStateStore(connection) as store:
        yield store


async def test_a_store_waits_for_its_server(connecting: Connecting, backing: SqliteStateStore) -> None:
    async with connecting("shop") as connection:
        opening = asyncio.ensure_future(RemoteStateStore(connection).__aenter__())
        await asyncio.sleep(0)
        async with connecting("evento-server") as server, StoreService(server, backing):
            store = await opening
            assert isinstance(await store.append(append()), Appended)
            await store.__aexit__()


async def test_without_a_server_operations_fail_definitely(
    connecting: Connecting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "_PATIENCE", 3600.0)  # so that none is sent just before the deadline
    async with connecting("shop") as connection:
        with pytest.raises(StoreUnavailable, match="no server could be asked") as caught:
            async with RemoteStateStore(connection, timeout=2):
                pass
        assert caught.value.definite


async def test_appends_survive_a_change_of_servers(
    connecting: Connecting, backing: SqliteStateStore, connection: NatsConnection, service: StoreService
) -> None:
    async with RemoteStateStore(connection) as store:
        await stored(store, append())
        await service.__aexit__()
        waiting = store.append(append())
        await asyncio.sleep(0)
        async with connecting("evento-server") as another, StoreService(another, backing):
            assert isinstance(await waiting, Appended)
            assert await store.head() == 2


async def test_an_append_in_flight_survives_a_lost_connection_and_is_stored_once(
    nats: NatsServer, remote: RemoteStateStore, backing: SqliteStateStore
) -> None:
    waiting = [remote.append(append(f"ORD_{number}")) for number in range(200)]
    await asyncio.sleep(0)
    await nats.kill()
    await nats.start()
    outcomes = await asyncio.gather(*waiting)
    assert all(isinstance(outcome, Appended | AlreadyStored) for outcome in outcomes)
    assert await backing.head() == 200
    assert (await backing.verify()).ok


async def test_what_a_server_took_with_it_when_it_was_killed_is_asked_again(
    connecting: Connecting, backing: SqliteStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "_PATIENCE", 0.05)
    taken: list[str] = []
    async with connecting("evento-server") as dead, connecting("shop") as connection:
        service = StoreService(dead, backing)
        await service.__aenter__()
        async with RemoteStateStore(connection) as store:
            deaf = [
                await dead.subscribe(dead.subjects.store(name), lambda call: taken.append(call.subject), queue="evento")
                for name in ("append", "lock")
            ]
            await service.__aexit__()
            waiting = store.append(append("ORD_1"))
            locking = asyncio.ensure_future(store.lock("L", owner="me", ttl=5))
            await eventually(lambda: len(taken) >= 2)
            async with connecting("evento-server") as alive, StoreService(alive, backing):
                for subscription in deaf:
                    await subscription.unsubscribe()
                assert isinstance(await waiting, Appended)
                assert await locking is not None
                assert await backing.head() == 1


class Slow:
    """A store that answers a lock only when it was asked for twice."""

    def __init__(self, store: SqliteStateStore) -> None:
        self._store = store
        self.asked = 0
        self._twice = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def lock(self, lock_id: str, **options: Any) -> Lease | None:
        lease = await self._store.lock(lock_id, **options)
        self.asked += 1
        if self.asked == 2:
            self._twice.set()
        await self._twice.wait()
        return lease


async def test_a_lock_that_takes_long_is_granted_once_to_who_asks_twice(
    connecting: Connecting, backing: SqliteStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "_PATIENCE", 0.05)
    slow: Any = Slow(backing)
    async with connecting("evento-server") as server, connecting("shop") as connection:
        service, store = StoreService(server, slow), RemoteStateStore(connection)
        async with service, store:
            lease = await store.lock("L", owner="me", ttl=60)
            assert lease is not None
            assert slow.asked >= 2
            assert await store.lock("L", owner="me", ttl=60) is None
            assert await store.unlock(lease)
            assert await store.lock("L", owner="other", ttl=60) is not None


async def test_an_answer_to_the_first_send_counts_after_the_second(
    connecting: Connecting, backing: SqliteStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever takes a server long: it is not done again for ever."""
    monkeypatch.setattr(requests, "_PATIENCE", 0.05)
    async with connecting("evento-server") as server, connecting("shop") as connection:
        service = StoreService(server, backing)
        await service.__aenter__()
        async with RemoteStateStore(connection) as store:
            await service.__aexit__()
            calls: list[Delivery] = []
            await server.subscribe(server.subjects.store("head"), calls.append, queue="evento")
            asking = asyncio.ensure_future(store.head())
            await eventually(lambda: len(calls) >= 3)
            calls[0].respond(encode(Answer(None, 7)))
            assert await asking == 7
            assert len({call.reply for call in calls}) == 1


async def test_a_refusal_is_not_definite_while_nobody_knows_what_became_of_the_first_send(
    connecting: Connecting, backing: SqliteStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "_PATIENCE", 0.05)
    async with connecting("evento-server") as server, connecting("shop") as connection:
        service = StoreService(server, backing)
        await service.__aenter__()
        async with RemoteStateStore(connection) as store:
            await service.__aexit__()
            calls: list[Delivery] = []

            def refuse_the_second(call: Delivery) -> None:
                calls.append(call)
                if len(calls) > 1:
                    error = error_to_data(Overloaded("too much waits"))
                    call.respond(encode(Answer(None, [wire.Failed(error)])))

            await server.subscribe(server.subjects.store("append"), refuse_the_second, queue="evento")
            with pytest.raises(Overloaded) as caught:
                await store.append(append("ORD_1"))
            assert not caught.value.definite


@pytest.mark.parametrize("sent_before", [False, True])
async def test_a_late_append_was_not_stored_unless_it_was_sent_before(
    connecting: Connecting, backing: SqliteStateStore, monkeypatch: pytest.MonkeyPatch, sent_before: bool
) -> None:
    """The first send is stored, and its answer lost; the second one is refused, which says nothing of the first."""
    if sent_before:
        monkeypatch.setattr(requests, "_PATIENCE", 0.05)
    async with connecting("evento-server") as server, connecting("shop") as connection:
        service = StoreService(server, backing)
        await service.__aenter__()
        async with RemoteStateStore(connection) as store:
            await service.__aexit__()
            calls: list[Delivery] = []

            def serve(call: Delivery) -> None:
                calls.append(call)
                if sent_before and len(calls) == 1:
                    call.inbox = b""
                else:
                    late = replace(wire.OPERATIONS["append"].decode_call(call.data), remaining=-0.5)
                    call.data = encode(late)
                appending.serve(call)

            appending = Appending(
                backing, service.counters, stored=lambda position: None, max_answer=1_000_000, payload_limit=1_000_000
            )
            await server.subscribe(server.subjects.store("append"), serve, queue="evento")
            with pytest.raises(StoreUnavailable, match="not started") as caught:
                await store.append(append("ORD_1"))
            await appending.drained()
            assert caught.value.definite is not sent_before
            assert await backing.head() == int(sent_before)


async def test_a_notice_of_the_server_ends_a_wait(
    remote: RemoteStateStore, backing: SqliteStateStore, connecting: Connecting, service: StoreService
) -> None:
    async with connecting("other") as connection, RemoteStateStore(connection) as other:
        waiting = asyncio.ensure_future(remote.wait(0, timeout=30))
        await other.head()
        await stored(other, append())
        assert await waiting == 1


async def test_whoever_follows_the_head_by_notices_does_not_ask_for_it(
    remote: RemoteStateStore, service: StoreService
) -> None:
    for number in range(1, 6):
        waiting = asyncio.ensure_future(remote.wait(number - 1, timeout=30))
        await stored(remote, append(f"ORD_{number}"))
        assert await waiting == number
    assert "head" not in service.counters.requests


async def test_a_wait_ends_with_a_look_at_the_server(remote: RemoteStateStore, backing: SqliteStateStore) -> None:
    await stored(backing, append())  # past the service: no notice is sent
    assert await remote.wait(0, timeout=0.2) == 1


async def test_a_wait_ends_soon_also_when_the_server_does_not_answer(
    connecting: Connecting, backing: SqliteStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_LOOK_SECONDS", 0.05)
    async with connecting("evento-server") as server, connecting("shop") as connection:
        service = StoreService(server, backing)
        await service.__aenter__()
        async with RemoteStateStore(connection) as store:
            await service.__aexit__()
            await server.subscribe(server.subjects.store("head"), lambda call: None, queue="evento")
            async with asyncio.timeout(20):
                with pytest.raises(StoreUnavailable, match="no answer came"):
                    await store.wait(0, timeout=0.01)


async def test_another_store_behind_the_server_is_refused(
    nats: NatsServer, connecting: Connecting, connection: NatsConnection, service: StoreService, tmp_path: Path
) -> None:
    async with RemoteStateStore(connection) as store:
        await service.__aexit__()
        async with (
            SqliteStateStore(tmp_path / "other.db") as other,
            connecting("evento-server") as server,
            StoreService(server, other),
        ):
            await nats.kill()
            await nats.start()
            with pytest.raises(StoreMismatch, match="restart the bundle"):
                await store.wait(10, timeout=20)


async def test_long_stories_and_finds_come_in_parts(tmp_path: Path) -> None:
    config = "max_payload: 65536\n"
    async with nats_server(tmp_path, config=config) as nats, SqliteStateStore(tmp_path / "events.db") as backing:

        def connecting(user: str) -> NatsConnection:
            return NatsConnection([nats.url], cluster="test", user=user, instance=f"{user}-1")

        async with (
            connecting("evento-server") as server,
            StoreService(server, backing),
            connecting("shop") as connection,
            RemoteStateStore(connection) as store,
        ):
            records = await filled(store, 400)
            story = await store.story("ORD_1", boundary="ORD_1", fingerprint="f")
            assert story.is_cut
            story = await whole(store, boundary="ORD_1", fingerprint="f")
            assert list(story.events) == records
            assert (story.version, story.boundary_version) == (400, 0)
            await store.snapshot(Snapshot("ORD_1", 10, "f", b"{}"))
            story = await whole(store, fingerprint="f")
            assert story.snapshot is not None
            assert list(story.events) == records[10:]
            assert (await store.search(EventFilter(), limit=350)).more
            assert await all_found(store, EventFilter()) == records
            assert await all_found(store, EventFilter(), descending=True) == records[::-1]
            pages: list[EventRecord] = []
            while len(pages) < 400:
                pages += (await store.fetch(len(pages))).events
            assert pages == records


async def test_too_many_operations_are_refused_at_once(connection: NatsConnection) -> None:
    async with RemoteStateStore(connection, max_queued=3) as store:
        waiting = [store.append(append()) for _ in range(3)]
        with pytest.raises(Overloaded):
            store.append(append())
        assert all(isinstance(outcome, Appended) for outcome in await asyncio.gather(*waiting))
        assert isinstance(await store.append(append()), Appended)


async def test_errors_of_the_server_arrive_as_they_were(remote: RemoteStateStore, backing: SqliteStateStore) -> None:
    await backing.__aexit__()
    with pytest.raises(StoreUnavailable, match="not open"):
        await remote.story("ORD_1")
    with pytest.raises(StoreUnavailable, match="not open"):
        await remote.append(append())
    await backing.__aenter__()


async def test_a_tombstone_travels(remote: RemoteStateStore) -> None:
    error = ErrorData("CommandRejected", "ListIsFull", "full", {"size": 5})
    assert await remote.reject("c1", error) is None
    refused = await remote.append(append(command_id="c1"))
    assert refused.error == error  # type: ignore[union-attr]


async def test_closing_the_service_answers_what_is_under_way(
    remote: RemoteStateStore, service: StoreService, backing: SqliteStateStore
) -> None:
    waiting = [remote.append(append()) for _ in range(500)]
    await remote.head()
    await service.__aexit__()
    assert await backing.head() == 500
    outcomes = await asyncio.gather(*waiting)
    assert all(isinstance(outcome, Appended) for outcome in outcomes)


async def test_a_large_event_travels(remote: RemoteStateStore) -> None:
    payload = b'{"text":"' + b"x" * 900_000 + b'"}'
    event = new_event(payload=payload)
    outcome = await remote.append(Append(event))
    assert isinstance(outcome, Appended)
    page = await remote.fetch(0)
    assert page.events[0].payload == payload


async def test_an_answer_that_cannot_be_read_leaves_the_outcome_open(connecting: Connecting) -> None:
    """What a newer server answered may be that the event is stored."""
    async with connecting("evento-server") as server, connecting("shop") as connection:
        identity = Answer(None, wire.Identity("s", 1, 0))
        await server.subscribe(server.subjects.store("identity"), lambda asked: asked.respond(encode(identity)))
        await server.subscribe(
            server.subjects.store("append"), lambda asked: asked.respond(b"\x92\xc0\x91\x91\xa4New!")
        )
        async with RemoteStateStore(connection) as store:
            with pytest.raises(StoreUnavailable, match="upgrade the older side") as caught:
                await store.append(append())
            assert not caught.value.definite


async def test_a_connection_that_is_closed_after_a_lost_answer_leaves_the_outcome_open(
    nats: NatsServer, connecting: Connecting
) -> None:
    async with connecting("evento-server") as server:
        identity = Answer(None, wire.Identity("s", 1, 0))
        await server.subscribe(server.subjects.store("identity"), lambda asked: asked.respond(encode(identity)))
        received = asyncio.Event()
        silent = await server.subscribe(server.subjects.store("append"), lambda asked: received.set())
        async with connecting("shop") as connection, AsyncExitStack() as stack:
            store = await stack.enter_async_context(RemoteStateStore(connection, timeout=20))
            waiting = store.append(append())
            await received.wait()
            await silent.unsubscribe()
            reconnected = asyncio.Event()
            connection.on_reconnect(reconnected.set)
            await nats.kill()
            await nats.start()
            await reconnected.wait()
            await asyncio.sleep(0.2)  # it is sent again, and nobody is there: no one is told of that but the store
            await connection.close()
            with pytest.raises(EventoError) as caught:
                await waiting
            assert not caught.value.definite


async def test_two_servers_with_stores_of_their_own_never_mix_them(
    connecting: Connecting, connection: NatsConnection, service: StoreService, backing: SqliteStateStore, tmp_path: Path
) -> None:
    """Whoever starts a second server without a database that both share is told, and no event goes astray."""
    async with (
        RemoteStateStore(connection) as store,
        SqliteStateStore(tmp_path / "other.db") as other,
        connecting("evento-server") as server,
        StoreService(server, other),
    ):
        outcomes: list[Any] = []
        for _ in range(60):
            outcomes += await asyncio.gather(store.append(append()), return_exceptions=True)
        own, others = (backing, other) if store.store_id == backing.store_id else (other, backing)
        assert await others.head() == 0
        assert await own.head() == sum(isinstance(outcome, Appended) for outcome in outcomes) < 60
        assert {type(outcome) for outcome in outcomes} == {Appended, StoreMismatch}


async def test_a_notice_that_overtakes_the_first_answer_is_not_forgotten(connecting: Connecting) -> None:
    async with connecting("evento-server") as server, connecting("shop") as connection:

        def answer(asked: Delivery) -> None:
            server.publish(server.subjects.head, encode(wire.HeadNotice(wire.FORMAT, "s", 7)))
            asked.respond(encode(Answer(None, wire.Identity("s", 1, 5))))

        await server.subscribe(server.subjects.store("identity"), answer)
        async with RemoteStateStore(connection) as store, asyncio.timeout(20):
            assert await store.wait(5, timeout=3600) == 7


async def test_a_store_whose_end_was_lost_is_not_used(nats: NatsServer, connecting: Connecting) -> None:
    async with connecting("evento-server") as server, connecting("shop") as connection:
        heads = [9, 4]

        def answer(asked: Delivery) -> None:
            asked.respond(encode(Answer(None, wire.Identity("s", 1, heads.pop(0)))))

        await server.subscribe(server.subjects.store("identity"), answer)
        async with RemoteStateStore(connection) as store:
            await nats.kill()
            await nats.start()
            with pytest.raises(StoreMismatch, match="ends at position 4"):
                await store.wait(9, timeout=20)


async def test_a_verification_that_is_cancelled_ends_soon_also_without_its_server(connecting: Connecting) -> None:
    async with connecting("evento-server") as server, connecting("shop") as connection:
        asked = asyncio.Event()
        answers: dict[str, msgspec.Struct] = {"identity": wire.Identity("s", 1, 5), "verify": wire.JobStarted("job-1")}
        for name, value in answers.items():
            data = encode(Answer(None, value))
            await server.subscribe(server.subjects.store(name), lambda call, data=data: call.respond(data))  # type: ignore[misc]
        await server.subscribe(server.subjects.store("job-1"), lambda call: asked.set())
        async with RemoteStateStore(connection) as store:
            verifying = asyncio.ensure_future(store.verify())
            await asked.wait()
            verifying.cancel()
            async with asyncio.timeout(10):
                with pytest.raises(asyncio.CancelledError):
                    await verifying
