"""What bundles tell of themselves, kept for the metrics.

Bundles choose the names, so their number is bounded: what comes after the limit is counted under the name ``other``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

__all__ = ["OTHER", "ConsumerKey", "ConsumerState", "Handled", "HandlerKey", "Instances", "Telemetry"]

OTHER: Final = "other"
_HALF: Final = 30.0


class HandlerKey(NamedTuple):
    """A handler, and what it handles."""

    bundle: str
    handler: str
    payload: str


@dataclass(slots=True)
class Handled:
    """How often a handler ran, since the server has started: ``failed`` of ``number``, and for how long in all.

    :meth:`slowest` is of the last half to whole minute.
    """

    number: int = 0
    failed: int = 0
    seconds: float = 0.0
    _slowest: float = 0.0
    _slowest_before: float = 0.0
    _since: float = 0.0

    def saw(self, slowest: float, now: float) -> None:
        """Take note of the slowest of some runs."""
        self._turn(now)
        self._slowest = max(self._slowest, slowest)

    def slowest(self, now: float) -> float:
        """Return how many seconds the slowest run took lately; 0 when there was none."""
        self._turn(now)
        return max(self._slowest, self._slowest_before)

    def _turn(self, now: float) -> None:
        passed = now - self._since
        if passed >= _HALF:
            self._slowest_before = self._slowest if passed < 2 * _HALF else 0.0
            self._slowest, self._since = 0.0, now


class ConsumerKey(NamedTuple):
    """A consumer."""

    bundle: str
    component: str
    version: int
    context: str


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """Where a consumer stands: events and seconds behind the head (None: not known), dead events, waiting ones.

    ``state`` is such as "running", ``position`` its checkpoint.
    """

    lag_events: int
    lag_seconds: float | None = None
    dead: int = 0
    waiting: int = 0
    position: int = 0
    state: str = "running"


@dataclass(frozen=True, slots=True)
class Instances:
    """How many instances of a bundle live, and how many of them are enabled."""

    live: int
    enabled: int


@dataclass(slots=True)
class Telemetry:
    """Sums of what handlers did, and the last state of each consumer and bundle.

    :param max_names: bound on handlers and on consumers, each.
    :param expiry: seconds after which the state of a consumer that nobody tells of is forgotten.
    """

    max_names: int = 2000
    expiry: float = 60.0
    clock: Callable[[], float] = time.monotonic
    instances: dict[str, Instances] = field(default_factory=dict)
    _handlers: dict[HandlerKey, Handled] = field(default_factory=dict)
    _consumers: dict[ConsumerKey, tuple[float, ConsumerState]] = field(default_factory=dict)

    def handled(
        self, key: HandlerKey, *, number: int, failed: int = 0, seconds: float = 0.0, slowest: float = 0.0
    ) -> None:
        """Add what a handler did since its bundle told last."""
        found = self._handlers.get(key)
        if found is None:
            if len(self._handlers) >= self.max_names:
                key = HandlerKey(OTHER, OTHER, OTHER)
            found = self._handlers.setdefault(key, Handled())
        found.number += max(0, number)
        found.failed += max(0, failed)
        found.seconds += max(0.0, seconds)
        found.saw(slowest, self.clock())

    def consumer(self, key: ConsumerKey, state: ConsumerState) -> None:
        """Replace the state of a consumer; beyond the bound it is dropped, as states cannot be added up."""
        if key in self._consumers or len(self._consumers) < self.max_names:
            self._consumers[key] = self.clock(), state

    def live(self, instances: Iterable[tuple[str, Instances]]) -> None:
        """Replace the counts of instances of all bundles; beyond the bound they are dropped.

        The consumers of bundles without an instance are forgotten: nobody works for them.
        """
        self.instances = dict(pair for pair, _ in zip(instances, range(self.max_names), strict=False))
        for key in [key for key in self._consumers if key.bundle not in self.instances]:
            del self._consumers[key]

    def handlers(self) -> Iterator[tuple[HandlerKey, Handled]]:
        """Yield what each handler did."""
        yield from list(self._handlers.items())

    def consumers(self) -> Iterator[tuple[ConsumerKey, ConsumerState]]:
        """Yield where each consumer stands of which somebody told lately."""
        oldest = self.clock() - self.expiry
        for key, (told, state) in list(self._consumers.items()):
            if told < oldest:
                del self._consumers[key]
            else:
                yield key, state
