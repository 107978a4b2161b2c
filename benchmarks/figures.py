"""What the benchmarks measure, and the tables they are shown in.

A :class:`Case` is one thing to measure; a run measures all cases of a group in turn, several rounds long, so that a
machine that gets slower or faster meanwhile does so for all of them. A :class:`Figure` is the outcome: medians over the
rounds, with the extremes beside them. Nothing here judges: targets are printed next to what was measured.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

__all__ = ["Case", "Figure", "Sample", "Table", "measure", "measured_calls", "progress", "sampled"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: operations per second, and the time of one operation in microseconds (median, 99th percentile).

    The times are None where single operations were not timed.
    """

    rate: float
    p50: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure: ``take()`` sets it up, measures it once and clears up behind itself.

    ``system`` is whose software runs, ``what`` what it does, ``in_flight`` how many operations are under way at a time.
    """

    system: str
    what: str
    in_flight: int
    take: Callable[[], Sample]

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells this case from others."""
        return (self.system, self.what, self.in_flight)


@dataclass(frozen=True, slots=True)
class Figure:
    """The samples of one case."""

    system: str
    what: str
    in_flight: int
    samples: tuple[Sample, ...]

    @property
    def rate(self) -> float:
        """Operations per second, the median of the rounds."""
        return median(sample.rate for sample in self.samples)

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest rate."""
        rates = [sample.rate for sample in self.samples]
        return min(rates), max(rates)

    @property
    def p50(self) -> float | None:
        """Half of the operations took at most this many microseconds."""
        return _median(sample.p50 for sample in self.samples)

    @property
    def p99(self) -> float | None:
        """99 of 100 operations took at most this many microseconds."""
        return _median(sample.p99 for sample in self.samples)


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it is printed, and as it stands in the documentation."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        """Return the table in Markdown, its columns aligned so that it reads well in a terminal too."""
        widths = [max(len(row[i]) for row in (self.columns, *self.rows)) for i in range(len(self.columns))]
        lines = [
            f"### {self.title}",
            "",
            _line(self.columns, widths),
            "|" + "|".join("-" * (width + 2) for width in widths) + "|",
            *(_line(row, widths) for row in self.rows),
        ]
        if self.note:
            lines += ["", self.note]
        return "\n".join(lines)


def measure(cases: Sequence[Case], *, rounds: int, label: str) -> list[Figure]:
    """Measure each case ``rounds`` times, all cases once before any of them again."""
    samples: dict[tuple[str, str, int], list[Sample]] = {case.key: [] for case in cases}
    for number in range(rounds):
        for done, case in enumerate(cases):
            progress(
                f"{label}: round {number + 1} of {rounds}, {done + 1} of {len(cases)}: "
                f"{case.system}, {case.what}, {case.in_flight} in flight"
            )
            gc.collect()
            samples[case.key].append(case.take())
    return [Figure(case.system, case.what, case.in_flight, tuple(samples[case.key])) for case in cases]


def sampled(seconds: float, times: list[float], count: int | None = None) -> Sample:
    """Return the sample of a window of ``seconds`` in which single operations took ``times`` (seconds each)."""
    if not times:
        return Sample((count or 0) / seconds)
    times.sort()
    return Sample(
        rate=(len(times) if count is None else count) / seconds,
        p50=times[len(times) // 2] * 1e6,
        p99=times[min(len(times) - 1, len(times) * 99 // 100)] * 1e6,
    )


async def measured_calls(call: Callable[[int], Awaitable[object]], until: float) -> list[float]:
    """Call ``call(0)``, ``call(1)`` ... one after another until a moment; return how long each took."""
    times = []
    number = 0
    begin = perf_counter()
    while begin < until:
        await call(number)
        number += 1
        end = perf_counter()
        times.append(end - begin)
        begin = end
    return times


def progress(text: str) -> None:
    """Say what is being done, on stderr."""
    print(f"  {text}", file=sys.stderr, flush=True)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        cell.ljust(width) if number == 0 else cell.rjust(width)
        for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "| " + " | ".join(padded) + " |"


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
