"""What the store service has done, as plain numbers: read by metrics, written by the event loop alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["LATENCY_BUCKETS", "Latencies", "StoreCounters"]

LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds in seconds."""


@dataclass(slots=True)
class Latencies:
    """A histogram: ``counts`` of each bucket of :data:`LATENCY_BUCKETS` and one beyond, their number and sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS) + 1))
    number: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one operation that took so long."""
        bucket = 0
        while bucket < len(LATENCY_BUCKETS) and seconds > LATENCY_BUCKETS[bucket]:
            bucket += 1
        self.counts[bucket] += 1
        self.number += 1
        self.seconds += seconds


@dataclass(slots=True)
class StoreCounters:
    """Numbers since the start. ``appended`` are events, ``outcomes`` appends by the name of their outcome."""

    requests: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    latencies: dict[str, Latencies] = field(default_factory=dict)
    appended: int = 0
    appended_bytes: int = 0
    fetched: int = 0
    refused: int = 0
    expired: int = 0
    in_flight: int = 0
    head: int = 0

    def took(self, operation: str, seconds: float) -> None:
        """Count one answered request."""
        self.requests[operation] += 1
        latencies = self.latencies.get(operation)
        if latencies is None:
            latencies = self.latencies[operation] = Latencies()
        latencies.add(seconds)
