"""The peer: the `eventsourcing` library on SQLite, doing the same commands at the same durability.

How it stores: it sets ``journal_mode=WAL`` on the file and leaves ``synchronous`` at SQLite's default, which is FULL in
the builds of CPython and the distributions: each save is one transaction with one flush, before ``save()`` returns. The
benchmark reads the setting back and refuses to compare when it is another one. Writers take turns at a lock inside the
library, so its SQLite lock timeout has no influence here.

Its settings that matter for one process, all measured:

* ``uncached``: the default; each command loads and folds the aggregate's events.
* ``cached``: ``AGGREGATE_CACHE_MAXSIZE`` set, the rest at its defaults: a command reads the events that came since and
  works on a deep copy.
* ``cached, unguarded``: also ``AGGREGATE_CACHE_FASTFORWARD=n`` (right only while nobody else writes) and
  ``DEEPCOPY_FROM_AGGREGATE_CACHE=n`` (a command that fails half way leaves its changes in the cache). Its fastest.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, cast
from uuid import UUID, uuid4

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import StoredEvent
from eventsourcing.sqlite import SQLiteFactory

from figures import Case, Sample, sampled
from workload import EVENTS_EACH, ORDERS, line

__all__ = ["SETTINGS", "SYSTEM", "Order", "append_cases", "command_cases", "replay_cases", "seed", "threads"]

SYSTEM = "eventsourcing"
SETTINGS: dict[str, dict[str, str]] = {
    "uncached": {},
    "cached": {"AGGREGATE_CACHE_MAXSIZE": str(2 * ORDERS)},
    "cached, unguarded": {
        "AGGREGATE_CACHE_MAXSIZE": str(2 * ORDERS),
        "AGGREGATE_CACHE_FASTFORWARD": "n",
        "DEEPCOPY_FROM_AGGREGATE_CACHE": "n",
    },
}


class Order(Aggregate):
    """An order, written as the library's documentation does it."""

    @event("Placed")
    def __init__(self, customer: str) -> None:
        self.customer = customer
        self.lines: dict[str, int] = {}
        self.total = 0

    def add_line(self, sku: str, title: str, quantity: int, unit_price: int, note: str) -> None:
        """Decide; then the event."""
        if quantity < 1:
            raise ValueError("a line has at least one piece")
        self._line_added(sku=sku, title=title, quantity=quantity, unit_price=unit_price, note=note)

    @event("LineAdded")
    def _line_added(self, sku: str, title: str, quantity: int, unit_price: int, note: str) -> None:
        self.lines[sku] = self.lines.get(sku, 0) + quantity
        self.total += quantity * unit_price


def seed(path: Path, *, orders: int = ORDERS) -> list[UUID]:
    """Make a store of orders of :data:`~workload.EVENTS_EACH` events each; return their ids."""
    ids = []
    with _application(path) as application:
        for number in range(orders):
            order = Order(customer=f"customer {number}")
            for index in range(EVENTS_EACH - 1):
                order.add_line(**line(number + index))
            application.save(order)
            ids.append(order.id)
    return ids


def command_cases(
    seeded: Path, ids: list[UUID], directory: Path, *, callers: tuple[int, ...], seconds: float
) -> list[Case]:
    """Load, decide, append one: at each setting, with one thread for each caller."""
    return [
        Case(SYSTEM, f"command, {setting}", count, _commands(seeded, ids, directory, setting, count, seconds))
        for setting in SETTINGS
        for count in callers
    ]


def append_cases(directory: Path, *, callers: tuple[int, ...], seconds: float) -> list[Case]:
    """Append one event to a stream of its own through the library's recorder: no aggregate, no serialization."""
    return [Case(SYSTEM, "append", count, _appends(directory, count, seconds)) for count in callers]


def replay_cases(seeded: Path, directory: Path) -> list[Case]:
    """Read all events in pages of 1000 and decode them: what its projections do before any handler runs."""
    return [Case(SYSTEM, "replay", 1, lambda: _replay(seeded, directory))]


def _commands(
    seeded: Path, ids: list[UUID], directory: Path, setting: str, callers: int, seconds: float
) -> Callable[[], Sample]:
    def take() -> Sample:
        with _copied(seeded, directory) as path, _application(path, SETTINGS[setting]) as application:
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


def _appends(directory: Path, callers: int, seconds: float) -> Callable[[], Sample]:
    state = b"x" * 280

    def take() -> Sample:
        with _emptied(directory) as path, _application(path) as application:
            recorder = application.recorder

            def append(caller: int, number: int) -> None:
                recorder.insert_events([StoredEvent(uuid4(), 1, "Order.LineAdded", state)])

            return threads(callers, seconds, append)

    return take


def _replay(seeded: Path, directory: Path) -> Sample:
    with _copied(seeded, directory) as path, _application(path) as application:
        begin = perf_counter()
        seen, last = 0, 0
        while page := application.recorder.select_notifications(last, 1000, inclusive_of_start=False):
            for notification in page:
                application.mapper.to_domain_event(notification)
            seen, last = seen + len(page), page[-1].id
        return Sample(seen / (perf_counter() - begin))


def threads(callers: int, seconds: float, call: Callable[[int, int], None]) -> Sample:
    """Run ``call(caller, number)`` in as many threads as callers for a while; an error of any of them ends the run."""
    times: list[list[float]] = [[] for _ in range(callers)]
    errors: list[BaseException] = []
    until = perf_counter() + seconds

    def work(caller: int) -> None:
        mine, number, begin = times[caller], 0, perf_counter()
        try:
            while begin < until and not errors:
                call(caller, number)
                end = perf_counter()
                mine.append(end - begin)
                number, begin = number + 1, end
        except BaseException as error:
            errors.append(error)

    begin = perf_counter()
    threads = [threading.Thread(target=work, args=(caller,)) for caller in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = perf_counter() - begin
    if errors:
        raise errors[0]
    return sampled(took, [time for mine in times for time in mine])


@contextmanager
def _application(path: Path, settings: dict[str, str] | None = None) -> Iterator[Application[UUID]]:
    env = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path), **(settings or {})}
    application: Application[UUID] = Application(env)
    try:
        _check_durability(application)
        yield application
    finally:
        application.close()


def _check_durability(application: Application[UUID]) -> None:
    factory = cast("SQLiteFactory", application.factory)
    with factory.datastore.transaction(commit=False) as cursor:
        found: dict[str, Any] = {}
        for pragma in ("journal_mode", "synchronous"):
            cursor.execute(f"PRAGMA {pragma}")
            found[pragma] = cursor.fetchone()[0]
    if found != {"journal_mode": "wal", "synchronous": 2}:
        raise SystemExit(f"the eventsourcing library stores with {found} here: not the durability to compare with")


@contextmanager
def _copied(seeded: Path, directory: Path) -> Iterator[Path]:
    with _emptied(directory) as path:
        shutil.copyfile(seeded, path)
        yield path


@contextmanager
def _emptied(directory: Path) -> Iterator[Path]:
    path = directory / "peer-run.db"
    try:
        yield path
    finally:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
