"""A cluster on one machine: invoker, handler, server, nats-server and the database, each in a process of its own.

The invoker is the process that measures. A command goes to the handler, which decides it on a state from its cache (or
loads it) and sends the event to the server; that has it on disk before anybody hears of it.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from statistics import median
from time import perf_counter, time_ns
from typing import Any, TypeAlias

import msgspec

from commands import SYSTEM, OrderAddLineCommand, OrderLineAddedEvent, OrderPlacedEvent, order_id, run_on_fast_loop
from evento import EventoBundle
from evento.messages import new_id
from evento.state_store import Append, Appended, NewEvent, StateStore
from evento.state_store.postgres import PostgresStateStore
from evento.state_store.sqlite import SqliteStateStore
from figures import Case, Sample, Table, measured_calls, progress, sampled
from processes import Process, Role, a_nats_server
from roles import OrderFindQuery
from sampling import Sampling
from workload import EVENTS_EACH, ORDERS, line

__all__ = [
    "HISTORY",
    "NAME",
    "Cluster",
    "a_cluster",
    "cases",
    "cpu_table",
    "memory_table",
    "open_store",
    "profile_table",
]

CALLERS = (1, 16, 64, 256)
LOADING_CALLERS = (1, 64)
QUERY_CALLERS = (1, 16, 64)
PROFILED_CALLERS = 64
HISTORY = 200_000
"""Events in each store at the start: those of the orders that commands go to, and of others."""
WINDOW = 1_000
NAME = "benchmark"
PACE = 0.01
"""Seconds between two commands while a projector follows a quiet system."""
Call: TypeAlias = Callable[[str, int], Awaitable[object]]
"""Does something to an order, the number-th time."""


@dataclass
class Cluster:
    """One cluster, and what was seen of it."""

    database: str
    nats: str
    server: Role
    others: Mapping[str, Process]
    directory: Path
    memory: list[float] = field(default_factory=list)
    cpu: dict[int, list[dict[str, float]]] = field(default_factory=dict)
    """Microseconds that each process spent on a command, by the number of callers."""

    def role(self, role: str, **options: str | bool) -> Role:
        """Start one more process."""
        return Role(role, nats=self.nats, cluster=NAME, **options)

    def invoker(self) -> EventoBundle:
        """Make the bundle of this process; it has no handlers."""
        return EventoBundle(
            "invoker",
            components=[],
            server=self.nats,
            cluster=NAME,
            consumer_state_store=f"sqlite+aiosqlite:///{self.directory / 'invoker.db'}",
        )

    def look(self) -> None:
        """Note the memory of the server, in MiB."""
        self.memory.append(self.server.resident_mib())


@contextmanager
def a_cluster(database: str, url: str, directory: Path, others: Mapping[str, Process]) -> Iterator[Cluster]:
    """Fill the store at ``url`` (a path: SQLite) and serve it; ``others`` are processes that work for the server."""
    progress(f"distributed: storing {HISTORY:,} events in {database}")
    run_on_fast_loop(_fill(url))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=directory)))
        nats, process = stack.enter_context(a_nats_server())
        server = stack.enter_context(Role("server", nats=nats, cluster=NAME, store=url))
        cluster = Cluster(database, nats, server, {"nats-server": process, **others}, folder)
        cluster.look()
        yield cluster


def cases(cluster: Cluster, *, seconds: float) -> list[Case]:
    """Commands, queries, replay, and how fast a projector follows."""

    def case(what: str, in_flight: int, take: Callable[[], Sample]) -> Case:
        def noting() -> Sample:
            try:
                return take()
            finally:
                cluster.look()

        return Case(SYSTEM, f"{what}, {cluster.database}", in_flight, noting)

    def commands(callers: int, *, cached: bool) -> Callable[[], Sample]:
        return lambda: run_on_fast_loop(_commands(cluster, callers, seconds, cached=cached))

    def queries(callers: int) -> Callable[[], Sample]:
        return lambda: run_on_fast_loop(_queries(cluster, callers, seconds))

    def following(callers: int | None) -> Callable[[], Sample]:
        return lambda: _following(cluster, callers, seconds)

    return [
        *(case("command, state cached", count, commands(count, cached=True)) for count in CALLERS),
        *(case("command, state loaded", count, commands(count, cached=False)) for count in LOADING_CALLERS),
        *(case("query", count, queries(count)) for count in QUERY_CALLERS),
        case("event to projector, quiet", 1, following(None)),
        case("event to projector, under load", 16, following(16)),
        case("replay", 1, lambda: _replay(cluster)),
    ]


# Taking samples ------------------------------------------------------------------------------------------------------


async def _commands(cluster: Cluster, callers: int, seconds: float, *, cached: bool) -> Sample:
    async with _commanding(cluster, cached=cached) as (handler, command):
        processes = {"invoker": Process(os.getpid()), "handler": handler, "server": cluster.server, **cluster.others}
        before = {name: process.cpu_seconds() for name, process in processes.items()}
        sample = await _called(command, callers, seconds)
        if cached:
            done = sample.rate * seconds
            used = {name: 1e6 * (one.cpu_seconds() - before[name]) / done for name, one in processes.items()}
            cluster.cpu.setdefault(callers, []).append(used)
        return sample


@asynccontextmanager
async def _commanding(cluster: Cluster, *, cached: bool) -> AsyncIterator[tuple[Role, Call]]:
    """Start a handler, and give it with what sends a command to it; it knows the state of each order, if it may."""
    with cluster.role("handler", cached=cached) as handler:
        async with cluster.invoker() as bundle:

            async def command(order: str, number: int) -> None:
                await bundle.commands.send(OrderAddLineCommand(order, **line(number)))

            numbers = iter(range(ORDERS))

            async def warm() -> None:
                for number in numbers:
                    await command(order_id(number), number)

            await asyncio.gather(*(warm() for _ in range(256)))
            yield handler, command


async def _queries(cluster: Cluster, callers: int, seconds: float) -> Sample:
    with cluster.role("handler", cached=True):
        async with cluster.invoker() as bundle:
            ask = bundle.queries.query
            await _called(lambda order, number: ask(OrderFindQuery(order)), callers, seconds / 5)
            return await _called(lambda order, number: ask(OrderFindQuery(order)), callers, seconds)


async def _called(call: Call, callers: int, seconds: float) -> Sample:
    """Let callers call one after another for a while, each with orders of its own: no conflicts."""

    def caller(first: int) -> Callable[[int], Awaitable[object]]:
        mine = range(first, ORDERS, callers)
        return lambda number: call(order_id(mine[number % len(mine)]), number)

    begin = perf_counter()
    times = await asyncio.gather(*(measured_calls(caller(first), begin + seconds) for first in range(callers)))
    return sampled(perf_counter() - begin, [time for mine in times for time in mine])


def _following(cluster: Cluster, callers: int | None, seconds: float) -> Sample:
    """Return how old events are when a projector gets them: counted from their decision, so the append is in it."""
    with cluster.role("projector", directory=str(cluster.directory)) as projector:
        projector.ask("follow")
        run_on_fast_loop(_followed(cluster, projector, callers, seconds))
        ages = projector.ask("leave")["ages"]
    return sampled(seconds, [age / 1e6 for age in ages])


async def _followed(cluster: Cluster, projector: Role, callers: int | None, seconds: float) -> None:
    async with _commanding(cluster, cached=True) as (_, command):
        await asyncio.to_thread(projector.ask, "forget")  # what has warmed the cache
        if callers is not None:
            await _called(command, callers, seconds)
            return
        until = perf_counter() + seconds
        numbers = count()
        while perf_counter() < until:
            await command(order_id(0), next(numbers))
            await asyncio.sleep(PACE)


def _replay(cluster: Cluster) -> Sample:
    with cluster.role("projector", directory=str(cluster.directory)) as projector:
        done = projector.ask("replay")
    return Sample(done["events"] / done["seconds"])


# Tables --------------------------------------------------------------------------------------------------------------


def cpu_table(clusters: list[Cluster]) -> Table:
    """Show what each process spent on a command."""
    names = ("invoker", "handler", "server", "nats-server", "database")
    rows = []
    for cluster in clusters:
        for callers, runs in cluster.cpu.items():
            spent = [median(run.get(name, 0.0) for run in runs) for name in names]
            cells = [f"{cost:.0f}" if cost else "" for cost in spent]
            rows.append((cluster.database, str(callers), *cells, f"{sum(spent):.0f}"))
    note = "State cached. On SQLite the database is a thread of the server."
    return Table("Processor time of a command, microseconds", ("on", "callers", *names, "in all"), tuple(rows), note)


def memory_table(clusters: list[Cluster]) -> Table:
    """Show the memory of the servers over the run."""
    rows = tuple(
        (one.database, *(f"{one.memory[at]:.0f}" for at in (0, len(one.memory) // 2, -1)), f"{max(one.memory):.0f}")
        for one in clusters
    )
    return Table("Memory of the server, MiB", ("on", "at the start", "in the middle", "at the end", "at most"), rows)


def profile_table(cluster: Cluster, *, seconds: float) -> Table:
    """Sample the Python processes while commands run."""
    progress(f"distributed: where the time goes, {cluster.database}")
    found = run_on_fast_loop(_profile(cluster, seconds))
    parts = {part for samples in found.values() for part in samples}
    totals = {name: sum(samples.values()) for name, samples in found.items()}
    weights = {part: sum(found[name].get(part, 0) / totals[name] for name in found) for part in parts}
    rows = tuple(
        (part, *(f"{found[name].get(part, 0) / totals[name]:.0%}" for name in found))
        for part in sorted(parts, key=lambda part: -weights[part])
        if weights[part] >= 0.01
    )
    title = f"Where the processor time of each process goes, {PROFILED_CALLERS} callers, {cluster.database}"
    return Table(title, ("part", *found), rows)


async def _profile(cluster: Cluster, seconds: float) -> dict[str, dict[str, int]]:
    own = Sampling()
    async with _commanding(cluster, cached=True) as (handler, command):
        roles = {"handler": handler, "server": cluster.server}
        for role in roles.values():
            role.ask("sample")
        own.start()
        await _called(command, PROFILED_CALLERS, seconds)
        return {"invoker": own.stop(), **{name: role.ask("samples")["samples"] for name, role in roles.items()}}


# Stores --------------------------------------------------------------------------------------------------------------


def open_store(url: str) -> Any:
    """Return the store at a URL or path, not open yet."""
    return PostgresStateStore(url) if url.startswith("postgresql:") else SqliteStateStore(url)


async def _fill(url: str) -> None:
    store: StateStore
    async with open_store(url) as store:
        appends = _history()
        while window := list(islice(appends, WINDOW)):
            for outcome in await asyncio.gather(*(store.append(append) for append in window)):
                if not isinstance(outcome, Appended):
                    raise SystemExit(f"an append of the benchmark was answered with {outcome!r}")


def _history() -> Iterator[Append]:
    for first in range(0, HISTORY // EVENTS_EACH, ORDERS):
        for version in range(EVENTS_EACH):
            for number in range(first, first + ORDERS):
                yield Append(_event(number, version), expected_version=version)


def _event(number: int, version: int) -> NewEvent:
    event = (
        OrderLineAddedEvent(order_id(number), **line(number + version))
        if version
        else OrderPlacedEvent(order_id(number), f"customer {number}")
    )
    command_id = new_id()
    return NewEvent(
        context="default",
        aggregate_id=order_id(number),
        name=type(event).__name__,
        schema_version=1,
        kind="domain",
        payload=msgspec.json.encode(event),
        metadata=b"{}",
        event_id=new_id(),
        command_id=command_id,
        correlation_id=command_id,
        causation_id=command_id,
        timestamp=time_ns() // 1000,
    )
