"""What was asked of Evento, next to what it did.

The budget was set on a machine like the one of ``docs/performance.md``; on another one look at the ratios, which are
measured in the same run, and not at the absolute figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import commands
import limits
import peer_eventsourcing as peer
from figures import Figure, Table

__all__ = ["table", "times_table"]


class Found:
    """The figures of a run, by system, work and operations in flight."""

    def __init__(self, figures: Iterable[Figure]) -> None:
        self._figures = {(figure.system, figure.what, figure.in_flight): figure for figure in figures}

    def rate(self, system: str, what: str, in_flight: int) -> float:
        """Return a rate; KeyError when it was not measured."""
        return self._figures[system, what, in_flight].rate

    def best(self, system: str, what: str) -> float:
        """Return the best rate over all numbers in flight."""
        return max(figure.rate for figure in self._figures.values() if (figure.system, figure.what) == (system, what))


@dataclass(frozen=True)
class Target:
    """One row of the budget: each part takes what was found and gives a rate (per second).

    The texts say what a rate comes from, where it was measured itself.
    """

    what: str
    measured: Callable[[Found], float]
    required: Callable[[Found], float]
    required_text: str
    aim: Callable[[Found], float]
    aim_text: str


def _command(callers: int) -> Callable[[Found], float]:
    return lambda found: found.rate(commands.SYSTEM, "command, state cached", callers)


def _peer(setting: str, factor: float) -> Callable[[Found], float]:
    return lambda found: factor * found.best(peer.SYSTEM, f"command, {setting}")


def _limit(what: str, in_flight: int, factor: float) -> Callable[[Found], float]:
    return lambda found: factor * found.rate(limits.SYSTEM, what, in_flight)


def _distributed(what: str, in_flight: int = 1) -> Callable[[Found], float]:
    return lambda found: found.rate(commands.SYSTEM, f"{what}, PostgreSQL", in_flight)


def _rate(value: float) -> Callable[[Found], float]:
    return lambda found: value


TARGETS = (
    Target(
        "durable domain command, 64 callers",
        _command(64),
        _peer("uncached", 10),
        "10x eventsourcing uncached:",
        _peer("cached", 10),
        "10x eventsourcing cached:",
    ),
    Target(
        "durable append through the port, 64 in flight",
        lambda found: found.rate(commands.SYSTEM, "append", 64),
        _rate(28_000),
        "",
        _limit("append", 64, 0.75),
        "75 % of bare SQLite:",
    ),
    Target(
        "the same, spread over 2,000 aggregates",
        lambda found: found.rate(commands.SYSTEM, "append, 2,000 aggregates", 64),
        _rate(28_000),
        "",
        _limit("append", 64, 0.75),
        "75 % of bare SQLite:",
    ),
    Target(
        "replay into a projector that does nothing",
        lambda found: found.rate(commands.SYSTEM, "replay", 1),
        _rate(200_000),
        "",
        _limit("replay", 1, 0.5),
        "50 % of bare SQLite:",
    ),
    Target(
        "distributed command, PostgreSQL, 64 callers",
        _distributed("command, state cached", 64),
        _peer("uncached, PostgreSQL", 5),
        "5x eventsourcing uncached:",
        _peer("uncached, PostgreSQL", 10),
        "10x eventsourcing uncached:",
    ),
    Target(
        "distributed replay into a projector that does nothing",
        _distributed("replay"),
        _rate(100_000),
        "",
        _rate(200_000),
        "",
    ),
)

TIMES = (
    ("command, state cached", 16, None, 3_000),
    ("event to projector, quiet", 1, 5_000, 2_000),
)
"""What, in flight, and how many microseconds its median may take: required, aimed at."""


def times_table(figures: Iterable[Figure]) -> Table:
    """Hold median times of the distributed cases against the budget."""
    found = {(figure.what, figure.in_flight): figure.p50 for figure in figures if figure.system == commands.SYSTEM}
    rows = []
    for what, in_flight, required, aim in TIMES:
        p50 = found.get((f"{what}, PostgreSQL", in_flight))
        if p50 is not None:
            limit = "" if required is None else f"{required / 1000:g}"
            rows.append((f"{what}, {in_flight} in flight", f"{p50 / 1000:.2f}", limit, f"{aim / 1000:g}"))
    return Table(
        "Times against the budget", ("median, PostgreSQL", "measured ms", "required ms", "aimed at ms"), tuple(rows)
    )


def table(figures: Iterable[Figure]) -> Table:
    """Hold what was measured against the budget; rows whose parts were not measured are left out."""
    found = Found(figures)
    rows = []
    for target in TARGETS:
        try:
            measured, required, aim = target.measured(found), target.required(found), target.aim(found)
        except (KeyError, ValueError):
            continue
        rows.append(
            (
                target.what,
                f"{measured:,.0f}",
                f"{target.required_text} {required:,.0f}".strip(),
                f"{measured / required:.2f}",
                f"{target.aim_text} {aim:,.0f}".strip(),
                f"{measured / aim:.2f}",
            )
        )
    return Table(
        "Against the budget",
        ("what", "measured/s", "required/s", "of it", "aimed at/s", "of it"),
        tuple(rows),
    )
