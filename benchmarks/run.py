"""Run the benchmarks and print their tables.

::

    python benchmarks/run.py [--quick] [--only GROUP] [--json FILE] [--page FILE] [--directory DIR]

Each group measures Evento, its peer and bare SQLite in turn, in one run and on one disk. The stores lie in a folder of
their own, which is removed at the end; keep it on a real disk: in memory a flush costs nothing. Progress goes to
stderr, the tables (Markdown) to stdout. Nothing is judged and nothing fails by being slow.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import commands
import distributed
import gateway
import history
import limits
import machine
import peer_eventsourcing as peer
import peer_postgres
import processes
import reactions
import replay
import store_append
import targets
import where
from figures import Figure, Table, measure, progress

CALLERS = (1, 16, 64)
SENDERS = (1, 16, 64, 256)
APPENDERS = (1, 16, 64, 256)
DISTRIBUTED = "distributed"
BEGIN, END = "<!-- {} -->", "<!-- end of {} -->"
"""What the tables of a section of the page stand between."""


@dataclass(frozen=True)
class Plan:
    """How long a run measures, how many events the large store has, and whether reads of the port are measured too."""

    rounds: int
    seconds: float
    large: int
    port_reads: bool


FULL = Plan(rounds=3, seconds=1.0, large=history.LARGE, port_reads=True)
QUICK = Plan(rounds=1, seconds=0.4, large=history.LARGE_QUICK, port_reads=False)


Measured = tuple[list[Figure], list[Table]]
"""The figures of a group, and the tables that show them."""


@dataclass(frozen=True)
class Baseline:
    """What the rates of a table are divided by: the best of a system doing one thing."""

    column: str
    system: str
    what: str

    def ratio(self, figure: Figure, figures: Iterable[Figure]) -> str:
        """Return how often the best baseline rate goes into a figure's rate."""
        rates = [other.rate for other in figures if (other.system, other.what) == (self.system, self.what)]
        return f"{figure.rate / max(rates):.2f}"


def main() -> int:
    """Run what was asked for."""
    arguments = _arguments()
    plan = QUICK if arguments.quick else FULL
    began = perf_counter()
    figures: dict[str, list[Figure]] = {}
    tables: dict[str, list[Table]] = {}
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=arguments.directory) as folder:
        directory = Path(folder)
        facts = machine.describe(directory)
        for name, group in GROUPS.items():
            if arguments.only in (None, name):
                section = name if name == DISTRIBUTED else "figures"
                measured, shown = group(directory, plan)
                figures.setdefault(section, []).extend(measured)
                tables.setdefault(section, []).extend(shown)
    facts["load after the run"] = f"{os.getloadavg()[0]:.2f}"
    how = f"{plan.rounds} rounds, {plan.seconds:g} s for each rate; the run took {perf_counter() - began:.0f} s."
    for section, measured in figures.items():
        budget = [targets.table(measured), targets.times_table(measured)]
        text = _text([machine.table(facts), *budget, *tables[section]], how)
        print(text)
        if arguments.page is not None:
            _put_into(arguments.page, section, text)
    if arguments.json is not None:
        arguments.json.write_text(_json(facts, plan, [figure for measured in figures.values() for figure in measured]))
    return 0


def run_commands(directory: Path, plan: Plan) -> Measured:
    """Measure domain commands: 2,000 orders of 20 events, load or take from a cache, decide, append one."""
    own, other = directory / "seed.db", directory / "peer.db"
    progress("commands: making the stores")
    commands.seed(own)
    ids = peer.seed(other)
    cases = [
        *commands.cases(own, directory, callers=CALLERS, seconds=plan.seconds),
        *peer.command_cases(other, ids, directory, callers=CALLERS, seconds=plan.seconds),
    ]
    figures = measure(cases, rounds=plan.rounds, label="commands")
    baselines = [
        Baseline("x uncached", peer.SYSTEM, "command, uncached"),
        Baseline("x cached", peer.SYSTEM, "command, cached"),
        Baseline("x unguarded", peer.SYSTEM, "command, cached, unguarded"),
    ]
    progress("commands: where the time goes")
    profile = where.table(own, directory, callers=CALLERS[-1], seconds=2 * plan.seconds)
    return figures, [_rates("Durable domain commands", figures, baselines), profile]


def run_reactions(directory: Path, plan: Plan) -> Measured:
    """Measure the same domain commands with states cached, without and with a saga and an observer in the system."""
    seeded = directory / "reactions.db"
    progress("reactions: making the store")
    commands.seed(seeded)
    figures = measure(
        reactions.cases(seeded, directory, callers=CALLERS, seconds=plan.seconds),
        rounds=plan.rounds,
        label="reactions",
    )
    baseline = Baseline("x without", commands.SYSTEM, "command, without")
    return figures, [_rates("Commands while sagas and observers follow", figures, [baseline])]


def run_appends(directory: Path, plan: Plan) -> Measured:
    """Measure appends of one event each through the store's port."""
    cases = [
        *store_append.append_cases(store_append.on_sqlite(directory), callers=APPENDERS, seconds=plan.seconds),
        *limits.append_cases(directory, callers=APPENDERS, seconds=plan.seconds),
        *peer.append_cases(directory, callers=APPENDERS, seconds=plan.seconds),
    ]
    figures = measure(cases, rounds=plan.rounds, label="appends")
    return figures, [_rates("Durable appends", figures, [Baseline("x eventsourcing", peer.SYSTEM, "append")])]


def run_replay(directory: Path, plan: Plan) -> Measured:
    """Measure how fast history is read back: through the store's port, and through the engine into projectors."""
    own, other = directory / "replay.db", directory / "peer-replay.db"
    progress("replay: making the stores")
    replay.fill(own)
    peer.seed(other)
    cases = [
        *replay.cases(own, directory),
        *(store_append.read_cases(store_append.on_sqlite(directory)) if plan.port_reads else ()),
        *limits.replay_cases(directory),
        *peer.replay_cases(other, directory),
    ]
    figures = measure(cases, rounds=plan.rounds, label="replay")
    return figures, [_rates("Reading history", figures, [Baseline("x eventsourcing", peer.SYSTEM, "replay")])]


def run_gateway(directory: Path, plan: Plan) -> Measured:
    """Measure round trips between two processes over a nats-server."""
    with gateway.nats_server(directory) as url:
        cases = gateway.cases(url, callers=SENDERS, seconds=plan.seconds)
        figures = measure(cases, rounds=plan.rounds, label="gateway")
    return figures, [_rates("Round trips between two processes", figures, [])]


def run_history(directory: Path, plan: Plan) -> Measured:
    """Measure single operations on a short and on a long history."""
    stores = {events: directory / f"history-{events}.db" for events in (history.SMALL, plan.large)}
    for events, path in stores.items():
        progress(f"history: storing {events:,} events")
        history.fill(path, events, progress)
    figures = measure(history.cases(stores), rounds=plan.rounds, label="history")
    return figures, [history.table(figures)]


def run_distributed(directory: Path, plan: Plan) -> Measured:
    """Measure clusters of processes, on PostgreSQL and on SQLite, beside the peer without any network."""
    with ExitStack() as stack:
        postgres = stack.enter_context(processes.a_postgres(directory))
        other = {"database": processes.Process(postgres.pid, children=True)}
        own_url, peer_env = processes.databases(postgres, "own", "peer")
        clusters = [
            stack.enter_context(distributed.a_cluster("PostgreSQL", own_url, directory, other)),
            stack.enter_context(distributed.a_cluster("SQLite", str(directory / "cluster.db"), directory, {})),
        ]
        progress("distributed: making the peer's stores")
        on_sqlite = directory / "peer.db"
        ids, sqlite_ids = peer_postgres.seed(peer_env), peer.seed(on_sqlite)
        cases = [
            *(case for cluster in clusters for case in distributed.cases(cluster, seconds=plan.seconds)),
            *peer_postgres.command_cases(peer_env, ids, seconds=plan.seconds),
            *peer.command_cases(on_sqlite, sqlite_ids, directory, callers=(1, 16), seconds=plan.seconds),
        ]
        figures = measure(cases, rounds=plan.rounds, label="distributed")
        baselines = [
            Baseline("x uncached, PostgreSQL", peer.SYSTEM, "command, uncached, PostgreSQL"),
            Baseline("x uncached, SQLite", peer.SYSTEM, "command, uncached"),
        ]
        profiles = [distributed.profile_table(cluster, seconds=2 * plan.seconds) for cluster in clusters]
        tables = [_rates("A cluster of processes", figures, baselines), distributed.cpu_table(clusters)]
        return figures, [*tables, *profiles, distributed.memory_table(clusters)]


GROUPS: dict[str, Callable[[Path, Plan], Measured]] = {
    "commands": run_commands,
    "reactions": run_reactions,
    "appends": run_appends,
    "replay": run_replay,
    "gateway": run_gateway,
    "history": run_history,
    DISTRIBUTED: run_distributed,
}


def _rates(title: str, figures: list[Figure], baselines: list[Baseline]) -> Table:
    columns = ("what", "in flight", "per second", "(lowest .. highest)", "p50 ms", "p99 ms")
    rows = tuple(
        (
            f"{figure.system}: {figure.what}",
            str(figure.in_flight),
            f"{figure.rate:,.0f}",
            f"({figure.spread[0]:,.0f} .. {figure.spread[1]:,.0f})",
            _milliseconds(figure.p50),
            _milliseconds(figure.p99),
            *(baseline.ratio(figure, figures) for baseline in baselines),
        )
        for figure in figures
    )
    return Table(title, (*columns, *(baseline.column for baseline in baselines)), rows)


def _milliseconds(micros: float | None) -> str:
    return "" if micros is None else f"{micros / 1000:.2f}"


def _text(tables: Iterable[Table], how: str) -> str:
    return "\n\n".join([*(table.markdown() for table in tables if table.rows), how])


def _put_into(page: Path, section: str, text: str) -> None:
    """Replace the tables of a section of the documentation: what stands between its two comments."""
    first, last = BEGIN.format(section), END.format(section)
    before, begin, rest = page.read_text().partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise SystemExit(f"{page} has no lines {first!r} and {last!r}: between them the tables are put")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def _json(facts: dict[str, str], plan: Plan, figures: list[Figure]) -> str:
    measured = [{**asdict(figure), "rate": figure.rate, "p50": figure.p50, "p99": figure.p99} for figure in figures]
    return json.dumps({"machine": facts, "plan": asdict(plan), "figures": measured}, indent=1) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure Evento beside its peer.")
    parser.add_argument("--quick", action="store_true", help="one short round, a smaller history: a minute or two")
    parser.add_argument("--only", choices=tuple(GROUPS), help="one group of measurements")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the tables into docs/performance.md")
    parser.add_argument(
        "--directory", type=Path, default=Path.cwd(), metavar="DIR", help="where the stores are made (default: here)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
