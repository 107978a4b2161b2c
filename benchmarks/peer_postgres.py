"""The peer on PostgreSQL: the `eventsourcing` library without any network of its own, in one process of many threads.

Each save is one transaction under a lock of the table, flushed before ``save()`` returns: the benchmark reads the
server's settings back and refuses to compare others. The settings are those of :mod:`peer_eventsourcing`; a thread gets
a connection of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast
from uuid import UUID

import psycopg
from eventsourcing.application import Application
from eventsourcing.postgres import PostgresFactory

from figures import Case, Sample
from peer_eventsourcing import SETTINGS, SYSTEM, Order, threads
from workload import EVENTS_EACH, ORDERS, line

__all__ = ["command_cases", "seed"]

THREADS = {"uncached": (1, 8, 16, 64), "cached": (1, 8, 64)}


def seed(env: dict[str, str]) -> list[UUID]:
    """Make orders of :data:`~workload.EVENTS_EACH` events each in the database of ``env``; return their ids."""
    ids = []
    with _application(env, "uncached") as application:
        for number in range(ORDERS):
            order = Order(customer=f"customer {number}")
            for index in range(EVENTS_EACH - 1):
                order.add_line(**line(number + index))
            application.save(order)
            ids.append(order.id)
    address = {word: env[f"POSTGRES_{word.upper()}"] for word in ("dbname", "host", "port", "user", "password")}
    with psycopg.connect(**address, autocommit=True) as connection:  # type: ignore[arg-type]
        connection.execute("VACUUM ANALYZE")  # as autovacuum soon would: without, it reads the whole table
    return ids


def command_cases(env: dict[str, str], ids: list[UUID], *, seconds: float) -> list[Case]:
    """Load, decide, append one, with one thread for each caller."""
    return [
        Case(SYSTEM, f"command, {setting}, PostgreSQL", count, _commands(env, ids, setting, count, seconds))
        for setting, counts in THREADS.items()
        for count in counts
    ]


def _commands(env: dict[str, str], ids: list[UUID], setting: str, callers: int, seconds: float) -> Callable[[], Sample]:
    def take() -> Sample:
        with _application(env, setting) as application:
            if setting != "uncached":
                for order_id in ids:
                    application.repository.get(order_id)

            def command(caller: int, number: int) -> None:
                mine = ids[caller::callers]  # callers never meet on an order: no conflicts, for either side
                order: Order = application.repository.get(mine[number % len(mine)])
                order.add_line(**line(number))
                application.save(order)

            return threads(callers, seconds, command)

    return take


@contextmanager
def _application(env: dict[str, str], setting: str) -> Iterator[Application[UUID]]:
    application: Application[UUID] = Application(
        {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_POOL_SIZE": str(max(THREADS[setting])),
            **env,
            **SETTINGS[setting],
        }
    )
    try:
        _check_durability(application)
        yield application
    finally:
        application.close()


def _check_durability(application: Application[UUID]) -> None:
    factory = cast("PostgresFactory", application.factory)
    found = {}
    with factory.datastore.get_connection() as connection:
        for setting in ("fsync", "synchronous_commit"):
            row = connection.execute(f"SELECT current_setting('{setting}') AS value").fetchone()
            found[setting] = row["value"] if row is not None else None
    if found != {"fsync": "on", "synchronous_commit": "on"}:
        raise SystemExit(f"the eventsourcing library stores with {found} here: not the durability to compare with")
