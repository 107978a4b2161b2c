"""A whole server: what it serves, how it says that it is well, and what it refuses."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest
from certificates import Certificates
from ports import free_port
from running_server import bundle, fetch, free_settings, token_for
from waiting import eventually

from evento.errors import AuthenticationError, StoreUnavailable
from evento.gateway.nats.calls import encode
from evento.messages.registration import BundleDescription, ConsumerSample, HandlerSample, Register, Sample, Session
from evento.server import ServerError
from evento.server.check import check
from evento.server.gateway import OwnGateway
from evento.server.nats_binary import find_nats_server
from evento.server.nats_config import required_permissions
from evento.server.nats_server import NatsServer
from evento.server.server import EventoServer
from evento.server.tokens import TokenFile
from evento.server.values import Address
from evento.state_store.remote import RemoteStateStore
from evento.testing.postgres import PostgresServer


def deadline() -> float:
    return asyncio.get_running_loop().time() + 30


def nats_of(server: EventoServer) -> Any:
    assert isinstance(server._gateway, OwnGateway)
    return server._gateway.nats


async def test_it_tells_that_it_lives_and_is_ready(tmp_path: Path) -> None:
    async with EventoServer(free_settings(tmp_path)) as server:
        live, ready, metrics = [await fetch(server, path) for path in ("/health/live", "/health/ready", "/metrics")]

        assert (live.status_code, live.json()) == (200, {"status": "up"})
        assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
        assert metrics.status_code == 200
        assert "version=0.0.4" in metrics.headers["content-type"]
        for sample in (
            'evento_server_info{cluster="shop",instance=',
            "evento_gateway_up 1.0",
            "evento_gateway_connections 1.0",
            "evento_store_head 0.0",
            "process_resident_memory_bytes",
        ):
            assert f"\n{sample}" in metrics.text
        assert (await fetch(server, "/schema")).status_code == 404


async def test_what_is_not_ready_is_named_and_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evento.server.nats_server._FIRST_PAUSE", 1.0)  # so that it is away for long enough to be seen
    async with EventoServer(free_settings(tmp_path)) as server:
        os.kill(nats_of(server).pid, signal.SIGKILL)
        refused = await answer_with(server, 503)
        assert set(refused.json()["not_ready"]) == {"gateway"}

        await answer_with(server, 200)
        assert nats_of(server).restarts == 1
        async with bundle(server, "b") as client:
            await client.request(client.subjects.store("head"), b"", deadline())
        assert "evento_gateway_restarts_total 1.0" in (await fetch(server, "/metrics")).text


async def answer_with(server: EventoServer, status: int) -> httpx.Response:
    """Ask whether the server is ready until the answer has this status, and return it."""
    answers: list[httpx.Response] = []

    async def has_status() -> bool:
        answers.append(await fetch(server, "/health/ready"))
        return answers[-1].status_code == status

    await eventually(has_status)
    return answers[-1]


async def test_a_part_that_does_not_answer_is_not_ready(tmp_path: Path) -> None:
    async def silent() -> str | None:
        await asyncio.Event().wait()
        return None

    async def broken() -> str | None:
        raise OSError("it is gone")

    async with EventoServer(free_settings(tmp_path)) as server:
        server.health.add("silent", silent)
        server.health.add("broken", broken)

        assert (await fetch(server, "/health/ready")).json() == {
            "status": "not ready",
            "not_ready": {"silent": "no answer within 2 seconds", "broken": "it is gone"},
        }


async def test_metrics_show_what_bundles_tell(tmp_path: Path) -> None:
    about = BundleDescription("orders", commands=("PlaceOrderCommand",))
    async with EventoServer(free_settings(tmp_path)) as server, bundle(server, "orders") as orders:
        await orders.request(
            orders.subjects.registration("orders", "register"), encode(Register(about, "1", enabled=True)), deadline()
        )
        handled = HandlerSample("OrderAggregate.place", "PlaceOrderCommand", 3, 1, 0.5, 0.25)
        consumer = ConsumerSample("OrderProjector", 1, "*", "running", 5, 9, 4, dead=2, waiting=1, lag_seconds=1.5)
        standby = msgspec.structs.replace(consumer, component="OtherProjector", state="standby")
        sample = Sample(Session("somebody", "1", 1), 1.0, (handled,), (consumer, standby))
        orders.publish(orders.subjects.telemetry("orders", "1"), b"no sample")
        orders.publish(orders.subjects.telemetry("orders", "1"), msgspec.msgpack.encode(sample))
        await eventually(lambda: shows(server, "evento_handler_seconds_count{"))
        await eventually(lambda: shows(server, "evento_instances{"))
        text = (await fetch(server, "/metrics")).text

        labels = 'bundle="orders",handler="OrderAggregate.place",payload="PlaceOrderCommand"'
        whose = 'bundle="orders",component="OrderProjector",context="*",version="1"'
        for line in (
            'evento_instances{bundle="orders",state="enabled"} 1.0',
            f"evento_handler_seconds_count{{{labels}}} 3.0",
            f"evento_handler_seconds_sum{{{labels}}} 0.5",
            f"evento_handler_failures_total{{{labels}}} 1.0",
            f"evento_consumer_lag_events{{{whose}}} 4.0",
            f"evento_consumer_lag_seconds{{{whose}}} 1.5",
            f"evento_consumer_dead_events{{{whose}}} 2.0",
            f"evento_consumer_waiting_events{{{whose}}} 1.0",
            f"evento_consumer_position{{{whose}}} 5.0",
            f"evento_handler_slowest_seconds{{{labels}}} 0.25",
        ):
            assert "OtherProjector" not in text
            assert line in text.replace('version="1",context="*"', 'context="*",version="1"')
        [state] = [line for line in text.splitlines() if line.startswith("evento_consumer_state{")]
        assert 'state="running"' in state


async def shows(server: EventoServer, name: str) -> bool:
    return f"\n{name}" in (await fetch(server, "/metrics")).text


async def test_the_store_is_served_and_counted(tmp_path: Path) -> None:
    async with EventoServer(free_settings(tmp_path)) as server, bundle(server, "orders") as orders:
        async with RemoteStateStore(orders) as store:
            assert await store.head() == 0

        text = (await fetch(server, "/metrics")).text
        assert 'evento_store_request_seconds_bucket{le="+Inf",operation="' in text


async def test_metrics_ask_for_their_token(tmp_path: Path) -> None:
    async with EventoServer(free_settings(tmp_path, metrics_token="open sesame")) as server:
        answers = [await fetch(server, "/metrics", token=token) for token in ("", "wrong", "open sesame")]

        assert [answer.status_code for answer in answers] == [401, 401, 200]
        assert (await fetch(server, "/health/ready")).status_code == 200


async def test_the_first_token_closes_a_running_server_and_a_revoked_one_is_cut_off(tmp_path: Path) -> None:
    async with EventoServer(free_settings(tmp_path)) as server, bundle(server, "anybody") as anybody:
        assert anybody.is_connected
        token = token_for(server, "orders")
        await eventually(lambda: is_refused(server, "anybody"))

        async with bundle(server, "orders", token) as orders:
            await orders.request(orders.subjects.store("head"), b"", deadline())
            assert (await fetch(server, "/health/ready")).status_code == 200
            token_for(server, "other")
            TokenFile(server.settings.token_file).revoke("orders")
            await eventually(lambda: is_refused(server, "orders", token))
            await eventually(lambda: not orders.is_connected)


async def is_refused(server: EventoServer, user: str, token: str | None = None) -> bool:
    try:
        async with bundle(server, user, token):
            return False
    except AuthenticationError:
        return True


@pytest.mark.parametrize("damage", ["remove", "open", "garble"])
async def test_tokens_that_cannot_be_read_any_more_still_hold(tmp_path: Path, damage: str) -> None:
    async with EventoServer(free_settings(tmp_path)) as server:
        token = token_for(server, "orders")
        await eventually(lambda: is_refused(server, "anybody"))
        file = server.settings.token_file
        if damage == "remove":
            file.unlink()
        elif damage == "open":
            file.chmod(0o644)
        else:
            file.write_text("{")

        refused = await answer_with(server, 503)
        assert "tokens.json" in refused.json()["not_ready"]["gateway"]
        assert await is_refused(server, "anybody")
        assert not await is_refused(server, "orders", token)
        nats_of(server)._process.kill()
        await eventually(lambda: restarted(server))
        await eventually(lambda: is_refused(server, "anybody"))


def restarted(server: EventoServer) -> bool:
    return bool(nats_of(server).restarts and nats_of(server).pid)


async def test_gateway_and_http_speak_tls(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    cert, key = certificates.make("server")
    trusting = ssl.create_default_context(cafile=certificates.ca)
    settings = free_settings(tmp_path / "data", tls_cert=cert, tls_key=key, tls_ca=certificates.ca)

    async with EventoServer(settings) as server:
        assert (await fetch(server, "/health/ready", tls=trusting)).status_code == 200
        assert "evento_tls_certificate_expires" in (await fetch(server, "/metrics", tls=trusting)).text
        async with bundle(server, "b", tls=trusting) as client:
            await client.request(client.subjects.store("head"), b"", deadline())
        with pytest.raises(StoreUnavailable, match="certificate verify failed"):
            async with impatient(server, tls=ssl.create_default_context()):
                pytest.fail("an unknown authority was trusted")


async def test_the_gateway_asks_for_certificates(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    cert, key = certificates.make("server")
    trusting, known = (ssl.create_default_context(cafile=certificates.ca) for _ in range(2))
    known.load_cert_chain(*certificates.make("bundle"))
    settings = free_settings(tmp_path / "data", tls_cert=cert, tls_key=key, tls_ca=certificates.ca, tls_verify=True)

    async with EventoServer(settings) as server:
        async with bundle(server, "b", tls=known) as client:
            await client.request(client.subjects.store("head"), b"", deadline())
        with pytest.raises(StoreUnavailable):
            async with impatient(server, tls=trusting):
                pytest.fail("it connected without a certificate")


def impatient(server: EventoServer, **options: Any) -> Any:
    client = bundle(server, "b", **options)
    client._start_timeout = 3.0  # within which it must be refused once
    return client


async def test_two_servers_do_not_share_a_folder(tmp_path: Path) -> None:
    async with EventoServer(free_settings(tmp_path)):
        with pytest.raises(ServerError, match="another server uses the folder"):
            async with EventoServer(free_settings(tmp_path)):
                pytest.fail("two in one folder")


@pytest.mark.parametrize("setting", ["http", "gateway"])
async def test_a_port_that_is_taken_is_told_and_nothing_is_left(tmp_path: Path, setting: str) -> None:
    async with EventoServer(free_settings(tmp_path / "one")) as first:
        taken = Address("127.0.0.1", int((first.http_url if setting == "http" else first.gateway_url).split(":")[-1]))
        with pytest.raises(ServerError, match=f"port {taken.port} is taken: .*--{setting}"):
            async with EventoServer(free_settings(tmp_path / "two", **{setting: taken})):
                pytest.fail("two on one port")
    async with EventoServer(free_settings(tmp_path / "two")) as server:
        assert (await fetch(server, "/health/ready")).status_code == 200


async def test_leaving_ends_all_and_a_new_start_goes_on(tmp_path: Path) -> None:
    ports = {name: Address("127.0.0.1", free_port()) for name in ("http", "gateway")}
    for _ in range(2):
        async with EventoServer(free_settings(tmp_path, **ports)) as server:
            pid = nats_of(server).pid
        assert not Path(f"/proc/{pid}").exists()
        with pytest.raises(httpx.ConnectError):
            await fetch(server, "/health/live")


async def test_leaving_cuts_off_what_does_not_end(tmp_path: Path) -> None:
    @asynccontextmanager
    async def stuck() -> AsyncIterator[None]:
        yield
        await asyncio.Event().wait()

    async with EventoServer(free_settings(tmp_path, shutdown_timeout=0.2)) as server:
        await server._stack.enter_async_context(stuck())
        pid = nats_of(server).pid

    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(httpx.ConnectError):
        await fetch(server, "/health/live")


async def test_being_cancelled_at_any_moment_of_the_start_leaves_nothing(tmp_path: Path) -> None:
    ports = {name: Address("127.0.0.1", free_port()) for name in ("http", "gateway")}
    for yields in (0, 1, 5, 20, 60):
        starting = asyncio.create_task(EventoServer(free_settings(tmp_path, **ports)).__aenter__())
        for _ in range(yields):
            await asyncio.sleep(0.002)  # a moment of the start, whichever it is
        starting.cancel()
        try:
            server = await starting
        except asyncio.CancelledError:
            continue
        await server.__aexit__()
    async with EventoServer(free_settings(tmp_path, **ports)) as server:
        assert (await fetch(server, "/health/ready")).status_code == 200


@pytest.mark.parametrize(
    ("settings", "say"),
    [
        ({"gateway": Address("0.0.0.0", 0)}, r"the gateway \(0\.0\.0\.0:0\).*evento token create"),
        ({"http": Address("0.0.0.0", 0)}, "EVENTO_ES_METRICS_TOKEN"),
        ({"cluster_listen": Address("0.0.0.0", 0)}, "EVENTO_ES_CLUSTER_SECRET"),
    ],
)
async def test_what_others_reach_without_being_asked_is_refused(tmp_path: Path, settings: Any, say: str) -> None:
    with pytest.raises(ServerError, match=f"{say}.*--insecure"):
        async with EventoServer(free_settings(tmp_path, **settings)):
            pytest.fail("it listens")
    async with EventoServer(free_settings(tmp_path, insecure=True, **settings)) as server:
        assert (await fetch(server, "/health/live")).status_code == 200


async def test_with_tokens_the_gateway_may_listen_beyond_this_machine(tmp_path: Path) -> None:
    token = TokenFile(tmp_path / "tokens.json").create("orders")
    async with EventoServer(free_settings(tmp_path, gateway=Address("0.0.0.0", 0))) as server:
        async with bundle(server, "orders", token) as orders:
            await orders.request(orders.subjects.store("head"), b"", deadline())
        assert await is_refused(server, "orders", "wrong")


async def joined(server: EventoServer) -> bool:
    return bool((await nats_of(server).state())["routes"])


def node(folder: Path, secret: str, listen: int, others: list[int], **settings: Any) -> EventoServer:
    return EventoServer(
        free_settings(
            folder,
            cluster_secret=secret,
            cluster_listen=Address("127.0.0.1", listen),
            cluster_routes=tuple(f"nats://127.0.0.1:{port}" for port in others),
            **settings,
        )
    )


async def test_nodes_join_and_a_bundle_of_one_reaches_a_handler_of_the_other(tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    async with node(tmp_path / "a", "s", first, []) as a, node(tmp_path / "b", "s", second, [first]) as b:
        await eventually(lambda: joined(a))
        async with bundle(a, "caller") as caller, bundle(b, "handler") as handler:
            await handler.subscribe(
                handler.subjects.command("X"), lambda delivery: delivery.respond(b"b"), queue="evento"
            )
            answer = await caller.request(caller.subjects.command("X"), b"", deadline(), grace=5.0)
            assert answer == b"b"


async def test_the_port_of_other_nodes_that_is_taken_is_told(tmp_path: Path) -> None:
    listen = free_port()
    async with node(tmp_path / "a", "s", listen, []):
        with pytest.raises(ServerError, match=f"port {listen} is taken: .*--cluster-listen"):
            async with node(tmp_path / "b", "s", listen, []):
                pytest.fail("two on one port")


async def test_a_node_without_the_secret_does_not_join(tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    async with node(tmp_path / "a", "s", first, []) as a, node(tmp_path / "b", "wrong", second, [first]):
        log = tmp_path / "a" / "nats-server.log"
        await eventually(lambda: "authentication error" in log.read_text().lower())
        assert not await joined(a)


async def test_an_existing_nats_is_used(tmp_path: Path) -> None:
    async with EventoServer(free_settings(tmp_path / "one")) as other:
        settings = free_settings(tmp_path / "two", nats=(other.gateway_url,))
        async with EventoServer(settings) as server:
            assert server.gateway_url == other.gateway_url
            assert (await fetch(server, "/health/ready")).status_code == 200
            assert "evento_gateway_up 0.0" in (await fetch(server, "/metrics")).text
            assert not (tmp_path / "two" / "nats-server.conf").exists()


async def test_the_printed_permissions_are_all_that_an_existing_nats_needs(tmp_path: Path) -> None:
    port = free_port()
    settings = free_settings(tmp_path / "data", nats=(f"nats://127.0.0.1:{port}",), nats_password="of the server")
    TokenFile(settings.token_file).create("orders")
    printed = required_permissions(settings, TokenFile(settings.token_file).read() or ())
    for user, password in (("evento-server", "of the server"), ("evento-admin", "a"), ("orders", "of orders")):
        printed = printed.replace(f"<the password of {user}>", password)
    folder = tmp_path / "nats"
    folder.mkdir()
    own = {"listen": f"127.0.0.1:{port}", "http": "127.0.0.1:-1", "ports_file_dir": str(folder), "max_payload": 10**7}
    config = msgspec.json.encode({**msgspec.json.decode(printed), **own}).decode()

    async with NatsServer(find_nats_server(), folder=folder, config=lambda: config), EventoServer(settings) as server:
        async with bundle(server, "orders", "of orders") as orders, RemoteStateStore(orders) as store:
            assert await store.head() == 0
        assert (await fetch(server, "/health/ready")).json() == {"status": "ready"}


async def test_in_postgresql_all_tables_are_in_the_schema(
    tmp_path: Path, postgres: PostgresServer, postgres_schema: str
) -> None:
    """So that a user is enough who may create nothing in the schema ``public``, as PostgreSQL's default is."""
    user = f"server_{os.getpid()}"
    admin = await asyncpg.connect(postgres.url)
    try:
        await admin.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'geheim'")
        await admin.execute(f"CREATE SCHEMA {postgres_schema} AUTHORIZATION {user}")
        settings = free_settings(tmp_path, store=postgres.url_of(user, "geheim"), store_schema=postgres_schema)
        async with EventoServer(settings) as server, bundle(server, "orders") as orders:
            call = encode(Register(BundleDescription("orders"), "1"))
            await orders.request(orders.subjects.registration("orders", "register"), call, deadline())
            assert (await fetch(server, "/health/ready")).json() == {"status": "ready"}
            await eventually(lambda: shows(server, 'evento_instances{bundle="orders",state="disabled"} 1.0'))
        tables = await admin.fetch("SELECT schemaname FROM pg_tables WHERE tableowner = $1", user)
    finally:
        await admin.execute(f"DROP OWNED BY {user}")
        await admin.execute(f"DROP ROLE {user}")
        await admin.close()

    assert {row["schemaname"] for row in tables} == {postgres_schema}


async def test_store_and_registry_read_the_url_of_postgresql_alike(
    tmp_path: Path, postgres: PostgresServer, postgres_schema: str
) -> None:
    user, password = postgres.url.partition("//")[2].partition("@")[0].split(":")
    login = f"host=127.0.0.1&port={postgres.port}&user={user}&password={password}"
    url = f"postgresql:///postgres?{login}&target_session_attrs=read-write"
    settings = free_settings(tmp_path, store=url, store_schema=postgres_schema)

    assert {finding.what: finding.text for finding in await check(settings) if not finding.fine} == {}
    async with EventoServer(settings) as server:
        assert (await fetch(server, "/health/ready")).json() == {"status": "ready"}
        elsewhere = free_settings(tmp_path / "another", store=url, store_schema=postgres_schema)
        for finding in await check(elsewhere):
            assert finding.fine, finding
            assert password not in finding.text


async def test_check_looks_at_the_registry_too(tmp_path: Path, postgres: PostgresServer, postgres_schema: str) -> None:
    settings = free_settings(tmp_path, store=postgres.url, store_schema=postgres_schema)
    async with EventoServer(settings):
        pass
    admin = await asyncpg.connect(postgres.url)
    try:
        await admin.execute(f"UPDATE {postgres_schema}.evento_registry_schema SET version = 99")
    finally:
        await admin.close()

    wrong = [finding for finding in await check(settings) if not finding.fine]
    assert [finding.what for finding in wrong] == ["registry"]
    assert "schema version 99" in wrong[0].text


async def test_two_servers_share_one_postgresql(tmp_path: Path, postgres: PostgresServer, postgres_schema: str) -> None:
    listen = free_port()
    shared = {"store": postgres.url, "store_schema": postgres_schema}
    async with (
        node(tmp_path / "a", "s", listen, [], **shared) as a,
        node(tmp_path / "b", "s", free_port(), [listen], **shared) as b,
    ):
        await eventually(lambda: joined(a))
        about = BundleDescription("orders", commands=("OrderPlaceCommand",))
        async with bundle(a, "orders") as orders, bundle(b, "shop") as shop:
            call = encode(Register(about, "1"))
            await orders.request(orders.subjects.registration("orders", "register"), call, deadline())
            text = (await fetch(b, "/metrics")).text
            async with RemoteStateStore(orders) as first, RemoteStateStore(shop) as second:
                assert first.store_id == second.store_id

        assert 'evento_instances{bundle="orders",state="disabled"} 1.0' in text


async def test_an_existing_nats_that_refuses_the_server_is_told(tmp_path: Path) -> None:
    async with EventoServer(free_settings(tmp_path / "one")) as other:
        token_for(other, "orders")
        await eventually(lambda: is_refused(other, "anybody"))
        with pytest.raises(AuthenticationError):
            async with EventoServer(free_settings(tmp_path / "two", nats=(other.gateway_url,), nats_password="wrong")):
                pytest.fail("it connected")


async def test_secrets_are_in_no_command_line_and_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    listen = free_port()
    async with node(tmp_path / "a", "the-route-secret", listen, [free_port()]) as server:
        token = token_for(server, "orders")
        await eventually(lambda: is_refused(server, "anybody"))
        from evento.server.credentials import Credentials

        own = Credentials.load(tmp_path / "a")
        assert own is not None
        everywhere = Path(f"/proc/{nats_of(server).pid}/cmdline").read_text()
    everywhere += caplog.text + (tmp_path / "a" / "nats-server.log").read_text()

    assert [secret for secret in (token, own.server, own.admin, "the-route-secret") if secret in everywhere] == []
    assert all(file.stat().st_mode & 0o077 == 0 for file in (tmp_path / "a").glob("nats-server.conf"))
