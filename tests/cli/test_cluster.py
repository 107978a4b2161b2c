"""The terminal and a cluster: its bundles, and the store that its servers keep."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from cluster import NAME, Cluster, a_cluster
from nats_server import nats_server
from running_server import free_settings
from shop import OrderAggregate, OrderCancelCommand, OrderInvoker, OrderPlaceCommand, OrderProjector, Orders

from evento import EventoBundle
from evento.messages.registration import BundleDescription, Register
from evento.server.server import EventoServer
from evento.server.tokens import TokenFile

HEADINGS = "BUNDLE VERSION STATE HEARTBEAT STARTED HOST PID INSTANCE"
INSTANCE_KEYS = "bundle instance version enabled heartbeat_age started_at host pid server"

Ask = Callable[..., Awaitable[Any]]


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVENTO_TOKEN", raising=False)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with a_cluster(tmp_path) as running:
        yield running


@pytest.fixture
def ask(cli: Any, cluster: Cluster) -> Ask:
    """Run a command beside the cluster, which is in this event loop."""

    async def run(*argv: str) -> Any:
        return await asyncio.to_thread(lambda: cli(*argv, "--server", cluster.url, "--cluster", NAME))

    return run


@pytest.fixture
async def orders(cluster: Cluster) -> AsyncIterator[EventoBundle]:
    """A bundle that has stored three events, the last of which deletes an order."""
    async with cluster.bundle("orders", [OrderAggregate], version=7) as bundle:
        for order in ("ORD_1", "ORD_2"):
            await bundle.commands.send(OrderPlaceCommand(order, "Ann"))
        await bundle.commands.send(OrderCancelCommand("ORD_2"))
        yield bundle


async def test_bundles_that_run_are_listed(cluster: Cluster, ask: Ask, orders: EventoBundle) -> None:
    async with cluster.bundle("web", [OrderInvoker]):
        result = await ask("bundles")
        assert (result.code, result.err) == (0, "")
        head, first, second = result.out.splitlines()
        assert head.split() == HEADINGS.split()
        assert first.split()[:3] == ["orders", "7", "enabled"]
        assert second.split()[:3] == ["web", "1", "enabled"]
    (only,) = (await ask("bundles", "orders", "--json")).objects
    assert list(only) == INSTANCE_KEYS.split()
    assert (only["bundle"], only["version"], only["enabled"]) == ("orders", 7, True)
    assert 0 <= only["heartbeat_age"] < 15
    assert only["started_at"].endswith("Z")


async def test_an_instance_that_takes_no_requests_yet_is_disabled(cluster: Cluster, ask: Ask) -> None:
    await cluster.registry.register(Register(BundleDescription("views", version=3), "i-1", host="h\x1b[31m"))
    (line,) = (await ask("bundles")).out.splitlines()[1:]
    assert line.split()[:3] == ["views", "3", "disabled"]
    assert "h\\x1b[31m" in line  # what a bundle says of itself must not steer the terminal
    assert (await ask("bundles", "--json")).objects[0]["enabled"] is False


async def test_no_bundle_is_no_error(ask: Ask) -> None:
    result = await ask("bundles")
    assert (result.code, result.out, result.err) == (0, "", "no bundle runs\n")
    result = await ask("bundles", "orders", "--json")
    assert (result.code, result.out) == (0, "")


async def test_events_are_read_through_the_servers(ask: Ask, orders: EventoBundle) -> None:
    listed = await ask("events", "list", "--json", "--name", "OrderPlacedEvent")
    assert [event["aggregate_id"] for event in listed.objects] == ["ORD_1", "ORD_2"]
    (shown,) = (await ask("events", "show", "1", "--json")).objects
    assert shown == listed.objects[0]
    result = await ask("events", "show", "9")
    assert (result.code, result.err) == (
        1,
        "evento: there is no event at position 9: the store has the positions 1 to 3\n",
    )


async def test_new_events_are_followed_through_the_servers(
    process: Any, cluster: Cluster, orders: EventoBundle
) -> None:
    tail = process("events", "tail", "--after", "2", "--json", "--server", cluster.url, "--cluster", NAME)
    assert '"position":"3"' in await asyncio.to_thread(tail.stdout.readline)
    await orders.commands.send(OrderPlaceCommand("ORD_3", "Ann"))
    assert '"aggregate_id":"ORD_3"' in await asyncio.to_thread(tail.stdout.readline)
    tail.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(tail.wait, 20) == 0


async def test_the_store_is_described_verified_and_purged_through_the_servers(
    ask: Ask, orders: EventoBundle, cluster: Cluster
) -> None:
    (info,) = (await ask("store", "info", "--json")).objects
    assert (info["head"], info["aggregates"], info["store_id"]) == ("3", 2, cluster.store.store_id)
    assert (await ask("store", "verify")).out == "3 events of 2 aggregates: ok\n"
    assert (await ask("store", "purge", "--older-than", "0s")).code == 2
    assert (await ask("store", "purge", "--older-than", "0s", "--dry-run")).out.startswith("would remove 1 events")
    assert (await ask("store", "purge", "--older-than", "0s", "--yes")).out.startswith("removed 1 events")
    assert (await ask("store", "info", "--json")).objects[0]["events"] == 2


async def test_the_environment_names_the_servers(
    cli: Any, cluster: Cluster, orders: EventoBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTO_SERVER", cluster.url)
    (info,) = (await asyncio.to_thread(cli, "store", "info", "--json", "--cluster", NAME)).objects
    assert info["store_id"] == cluster.store.store_id
    assert (await asyncio.to_thread(cli, "bundles", "--cluster", NAME)).code == 0


def test_bundles_are_asked_of_servers_only(cli: Any) -> None:
    for argv in ((), ("--server", "embedded:shop.db")):
        result = cli("bundles", *argv)
        assert result.code == 2
        assert "give --server nats://HOST:3030" in result.err


@pytest.mark.parametrize("verb", [("bundles",), ("store", "info"), ("events", "list")])
def test_an_address_that_is_none_is_wrong_use(cli: Any, verb: tuple[str, ...]) -> None:
    result = cli(*verb, "--server", "nats://ann:secret@host:3030")
    assert result.code == 2
    assert "nats://HOST:3030" in result.err
    assert "secret" not in result.err


@pytest.mark.parametrize("verb", [("bundles",), ("store", "info")])
def test_a_server_that_does_not_answer_is_named_in_one_line(
    cli: Any, verb: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evento.cli.cluster.CONNECT_SECONDS", 1.0)
    result = cli(*verb, "--server", "nats://127.0.0.1:1")
    assert (result.code, len(result.err.splitlines())) == (1, 1)
    assert "127.0.0.1:1" in result.err
    assert "evento server" in result.err


async def test_a_gateway_without_servers_is_told_apart(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evento.cli.cluster._GRACE_SECONDS", 0.3)
    async with nats_server(tmp_path) as nats:
        result = await asyncio.to_thread(cli, "bundles", "--server", nats.url, "--cluster", "shop")
        assert (result.code, len(result.err.splitlines())) == (1, 1)
        assert "no Evento Server of the cluster 'shop'" in result.err


async def test_the_servers_own_credentials_open_everything(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = free_settings(tmp_path / "data")
    token = TokenFile(settings.token_file).create("views")
    async with EventoServer(settings) as server:
        where = ("--server", server.gateway_url, "--cluster", "shop", "--json")

        async def ask(*argv: str) -> Any:
            return await asyncio.to_thread(
                lambda: cli(*argv, *where, "--token-file", settings.data / "credentials.json")
            )

        state = f"sqlite+aiosqlite:///{tmp_path / 'consumers.db'}"
        options: dict[str, Any] = {
            "server": server.gateway_url,
            "cluster": "shop",
            "token": token,
            "consumer_state_store": state,
        }
        async with EventoBundle("views", components=[OrderProjector], injector={Orders: Orders()}, **options):
            assert [line["bundle"] for line in (await ask("bundles")).objects] == ["views"]
            (status,) = (await ask("consumers", "list")).objects
            assert status["component"] == "OrderProjector"
            paused = await ask("consumers", "pause", "OrderProjector")
            assert (paused.code, paused.err) == (0, "")
            assert (await ask("store", "verify")).code == 0
            assert (await ask("events", "list")).code == 0
            monkeypatch.setenv("EVENTO_TOKEN", token)  # a bundle's token is not the administrator's
            result = await asyncio.to_thread(lambda: cli("consumers", "list", *where))
            assert result.code == 1
            assert token not in result.err


async def test_an_encrypted_gateway_is_asked_where_its_authority_is_trusted(cli: Any, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    cert, key = certificates.make("server")
    async with EventoServer(free_settings(tmp_path / "data", tls_cert=cert, tls_key=key)) as server:
        address = server.gateway_url.replace("nats://", "tls://")

        async def ask(*argv: str | Path) -> Any:
            return await asyncio.to_thread(lambda: cli("bundles", "--server", address, "--cluster", "shop", *argv))

        assert (await ask("--ca", certificates.ca)).err == "no bundle runs\n"
        unreadable = await ask("--ca", tmp_path / "none.pem")
        assert (unreadable.code, len(unreadable.err.splitlines())) == (1, 1)
        assert "none.pem" in unreadable.err


class TestTokens:
    """A gateway that knows the administrator by a token."""

    SECRET = "tok-4711"

    @pytest.fixture
    async def server(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
        monkeypatch.setattr("evento.cli.cluster._GRACE_SECONDS", 0.3)
        users = f'authorization {{ users: [{{ user: "evento-admin", password: "{self.SECRET}" }}] }}'
        async with nats_server(tmp_path, config=users) as nats:
            yield nats.url

    async def bundles(self, cli: Any, server: str, *argv: str | Path) -> Any:
        result = await asyncio.to_thread(cli, "bundles", "--server", server, *argv)
        assert (result.code, len(result.err.splitlines())) == (1, 1)
        assert self.SECRET not in result.err
        return result.err

    async def test_of_the_environment(self, cli: Any, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EVENTO_TOKEN", self.SECRET)
        assert "a gateway answers" in await self.bundles(cli, server)
        monkeypatch.setenv("EVENTO_TOKEN", "wrong")
        assert "--token-file" in await self.bundles(cli, server)
        monkeypatch.delenv("EVENTO_TOKEN")
        refused = await self.bundles(cli, server)
        assert "refused the user 'evento-admin'" in refused
        assert "it showed no token" in refused

    @pytest.mark.parametrize("content", [SECRET, f"{SECRET}\n", f'{{"server": "other", "admin": "{SECRET}"}}'])
    async def test_of_a_file(self, cli: Any, server: str, tmp_path: Path, content: str) -> None:
        file = tmp_path / "token"
        file.write_text(content)
        assert "a gateway answers" in await self.bundles(cli, server, "--token-file", file)

    @pytest.mark.parametrize("content", [b"", b"two words", b"\xff\xfe", b'{"admin": ""}', b"{"])
    async def test_a_file_without_one_is_refused(self, cli: Any, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "token"
        file.write_bytes(content)
        assert "the token file" in await self.bundles(cli, "nats://127.0.0.1:1", "--token-file", file)

    async def test_a_file_that_is_not_there_is_named(self, cli: Any, tmp_path: Path) -> None:
        told = await self.bundles(cli, "nats://127.0.0.1:1", "--token-file", tmp_path / "none")
        assert "none cannot be read" in told
