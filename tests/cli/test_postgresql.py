"""The verbs that read a store, on PostgreSQL."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from appending_worker import event

from evento.state_store import Append
from evento.state_store.postgres import PostgresStateStore
from evento.testing.postgres import PostgresServer


@pytest.fixture
def database(postgres: PostgresServer, postgres_schema: str) -> str:
    """Give the URL of a database of its own, with two aggregates, one of them deleted."""
    url = f"{postgres.url.rpartition('/')[0]}/{postgres_schema}"

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


def test_no_store_no_server_and_no_driver_are_one_line_each(
    cli: Any, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url, says in (
        (f"{postgres.url.rpartition('/')[0]}/template1", "no event store"),
        (f"{postgres.url.rpartition('/')[0]}/nowhere", "no such database"),
        ("postgresql://ann:evento-test@127.0.0.1:1/shop", "cannot be reached"),
        (postgres.url.replace("evento-test", "wrong"), "login was refused"),
        ("postgresql://ann:evento-test@host:port/shop", "no address"),
    ):
        result = cli("store", "info", "--store", url)
        assert (result.code, result.out, len(result.err.splitlines())) == (1, "", 1)
        assert says in result.err
        assert "evento-test" not in result.err
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    for name in [name for name in sys.modules if name.startswith("evento.state_store.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    result = cli("store", "info", "--store", postgres.url)
    assert result.code == 1
    assert "pip install 'evento-framework[postgres]'" in result.err


def test_consumers_of_a_store_on_postgresql_must_be_named(cli: Any, database: str) -> None:
    result = cli("consumers", "list", "--store", database)
    assert result.code == 2
    assert "--consumers" in result.err
