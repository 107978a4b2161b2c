"""The verbs that read a store, on PostgreSQL."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from appending_worker import event

from evento.consumers import SqlConsumerStateStore
from evento.state_store import Append
from evento.state_store.postgres import PostgresStateStore
from evento.testing.postgres import PostgresServer

PASSWORD = "evento-test"


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)


@pytest.fixture
def server(postgres: PostgresServer) -> str:
    """Give the URL of the server, without a password and a database."""
    return postgres.url.replace(f":{PASSWORD}", "").rpartition("/")[0]


@pytest.fixture
def database(postgres: PostgresServer, server: str, postgres_schema: str) -> str:
    """Give the URL of a database of its own, with two aggregates, one of them deleted."""
    url = f"{server}/{postgres_schema}"

    async def fill() -> None:
        async with PostgresStateStore(postgres.url, schema=postgres_schema) as store:
            await store._state().connections.run(lambda db: db.execute(f"CREATE DATABASE {postgres_schema}"))
        async with PostgresStateStore(url) as store:
            for aggregate_id in ("ORD_1", "ORD_2", "ORD_2"):
                await store.append(Append(event(aggregate_id)))
            await store.append(Append(event("ORD_2"), deletes=True))

    asyncio.run(fill())
    return url


def test_a_store_is_described_verified_listed_and_purged(cli: Any, database: str) -> None:
    info = cli("store", "info", "--json", "--store", database).objects[0]
    assert (info["head"], info["aggregates"], info["deleted_aggregates"]) == ("4", 2, 1)
    assert "PostgreSQL at 127.0.0.1" in info["location"]
    assert cli("store", "verify", "--store", database).out == "4 events of 2 aggregates: ok\n"
    purged = cli("store", "purge", "--older-than", "0s", "--yes", "--json", "--store", database)
    assert (purged.code, purged.objects[0]["ranges"]) == (0, [["2", "3"]])
    listed = cli("events", "list", "--json", "--store", database).objects
    assert [(one["position"], one["aggregate_id"]) for one in listed] == [("1", "ORD_1"), ("4", "ORD_2")]
    shown = cli("events", "show", "4", "--json", "--store", database).objects[0]
    assert shown["version"] == 3


@pytest.fixture
def shop(postgres: PostgresServer, postgres_schema: str) -> str:
    """Give the name of a schema, beside others in one database, that holds the event of ORD_7."""

    async def fill() -> None:
        async with PostgresStateStore(postgres.url, schema=postgres_schema) as store:
            await store.append(Append(event("ORD_7")))

    asyncio.run(fill())
    return postgres_schema


def test_a_store_in_another_schema_is_named(cli: Any, server: str, shop: str) -> None:
    named = ("--store", f"{server}/postgres", "--store-schema", shop)
    assert [one["aggregate_id"] for one in cli("events", "list", "--json", *named).objects] == ["ORD_7"]
    assert f"schema {shop}" in cli("store", "info", *named).out
    nowhere = cli("store", "info", "--store", f"{server}/postgres", "--store-schema", "nowhere")
    assert (nowhere.code, "no event store" in nowhere.err, "schema nowhere" in nowhere.err) == (1, True, True)


def test_consumers_of_a_store_in_another_schema(cli: Any, server: str, shop: str, tmp_path: Path) -> None:
    async def make() -> None:
        async with SqlConsumerStateStore(f"sqlite+aiosqlite:///{tmp_path}/consumers.db"):
            pass

    asyncio.run(make())
    named = ("--store", f"{server}/postgres", "--store-schema", shop, "--consumers", f"sqlite:{tmp_path}/consumers.db")
    listed = cli("consumers", "list", "--json", *named)
    assert (listed.code, listed.out, listed.err) == (0, "", "")


@pytest.mark.parametrize(
    "words", [["--store", "sqlite:shop.db"], ["--server", "embedded:shop.db"], ["--server", "nats://127.0.0.1:1"]]
)
@pytest.mark.parametrize("verb", [["events", "list"], ["store", "info"], ["consumers", "list"]], ids=" ".join)
def test_other_stores_have_no_schema(cli: Any, verb: list[str], words: list[str]) -> None:
    result = cli(*verb, *words, "--store-schema", "shop")
    assert (result.code, "--store-schema belongs to --store postgresql://" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("{server}/template1", "no event store"),
        ("{server}/nowhere", "no such database"),
        ("postgresql://ann@127.0.0.1:1/shop", "cannot be reached"),
        ("postgresql://ann@host:port/shop", "no address"),
        ("postgresql:/ann:port@host/shop", "no address"),
    ],
)
def test_no_store_and_no_server_are_one_line_each(cli: Any, server: str, url: str, says: str) -> None:
    result = cli("store", "info", "--store", url.format(server=server))
    assert (result.code, result.out, len(result.err.splitlines())) == (1, "", 1)
    assert says in result.err
    assert PASSWORD not in result.err


def test_a_wrong_password_is_one_line(cli: Any, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "wrong")
    result = cli("store", "info", "--store", f"{server}/postgres")
    assert (result.code, len(result.err.splitlines())) == (1, 1)
    assert "login was refused" in result.err


def test_no_driver_is_one_line(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    for name in [name for name in sys.modules if name.startswith("evento.state_store.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    result = cli("store", "info", "--store", "postgresql://ann@127.0.0.1:1/shop")
    assert result.code == 1
    assert "pip install 'evento-framework[postgres]'" in result.err


def test_consumers_of_a_store_on_postgresql_must_be_named(cli: Any, database: str) -> None:
    result = cli("consumers", "list", "--store", database)
    assert result.code == 2
    assert "--consumers" in result.err
