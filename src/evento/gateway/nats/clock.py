"""The time of the cluster, so that the clocks of hosts do not matter."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["ClusterClock"]

_KEPT = 8


class _Sample(NamedTuple):
    offset: float
    error: float


class ClusterClock:
    """Tells the cluster's time from this process's monotonic clock.

    The offset comes from answers that carry the server's time: it was read at some moment between sending and
    receiving, so the error is at most half the round trip. Of the last eight answers the one with the shortest round
    trip counts, as long as the newest does not contradict it (then the server's clock has changed, and it counts).

    :param monotonic: this process's clock, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._samples: deque[_Sample] = deque(maxlen=_KEPT)
        self._best: _Sample | None = None

    @property
    def is_known(self) -> bool:
        """Whether any answer has told the time yet."""
        return self._best is not None

    @property
    def uncertainty(self) -> float:
        """By how many seconds :meth:`now` may be wrong; infinite while nothing is known."""
        return self._best.error if self._best is not None else float("inf")

    def reading(self) -> float:
        """Return this process's own clock: take it before sending and after receiving, for :meth:`correct`."""
        return self._monotonic()

    def correct(self, server_time: float, sent: float, received: float) -> None:
        """Learn from an answer: the server's time, and this clock's readings before sending and after receiving."""
        sample = _Sample(server_time - (sent + received) / 2, max(0.0, (received - sent) / 2))
        if self._best is not None and abs(sample.offset - self._best.offset) > sample.error + self._best.error + 0.001:
            self._samples.clear()
        self._samples.append(sample)
        self._best = min(self._samples, key=lambda one: one.error)

    def now(self) -> float:
        """Return the cluster's time in seconds; 0 while it is not known."""
        return self._monotonic() + self._best.offset if self._best is not None else 0.0

    def elapsed_since(self, moment: float) -> float:
        """Return how many seconds have surely passed since a moment of the cluster's time; 0 when either is unknown."""
        if moment <= 0 or self._best is None:
            return 0.0
        return max(0.0, self.now() - moment - self._best.error)
