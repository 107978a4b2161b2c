"""Sampling: what this instance's handlers did and where its consumers stand, told to the servers once a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evento.consumers import ConsumerStatus
from evento.messages.registration import ConsumerSample, HandlerSample

__all__ = ["HandlerCounts", "Publish", "Sampler"]

logger = logging.getLogger("evento.bundle")

PERIOD = 1.0

Publish = Callable[[float, Sequence[HandlerSample], Sequence[ConsumerSample]], None]


@dataclass(slots=True)
class _Count:
    number: int = 0
    errors: int = 0
    seconds: float = 0.0
    slowest: float = 0.0


class HandlerCounts:
    """Counts runs of command and query handlers; their number is that of the handlers."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], _Count] = {}

    def add(self, handler: str, payload: str, seconds: float, failed: bool) -> None:
        """Count a run of a handler that took so long."""
        count = self._counts.get((handler, payload))
        if count is None:
            count = self._counts[handler, payload] = _Count()
        count.number += 1
        count.errors += failed
        count.seconds += seconds
        count.slowest = max(count.slowest, seconds)

    def take(self) -> list[HandlerSample]:
        """Return what was counted since the last time."""
        counts, self._counts = self._counts, {}
        return [
            HandlerSample(handler, payload, count.number, count.errors, count.seconds, count.slowest)
            for (handler, payload), count in counts.items()
        ]


class Sampler:
    """Publishes a sample a second from entering to leaving, and a last one then.

    :param statuses: returns where each consumer stands.
    :param publish: sends a sample's parts: the seconds that it spans, handlers, consumers; it does not wait.
    """

    def __init__(
        self, counts: HandlerCounts, *, statuses: Callable[[], Sequence[ConsumerStatus]], publish: Publish
    ) -> None:
        self._counts = counts
        self._statuses = statuses
        self._publish = publish
        self._since = 0.0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Sampler:
        """Start publishing."""
        self._since = asyncio.get_running_loop().time()
        self._task = asyncio.create_task(self._run(), name="evento samples")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._tell()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PERIOD)
            self._tell()

    def _tell(self) -> None:
        now = asyncio.get_running_loop().time()
        seconds, self._since = now - self._since, now
        try:
            self._publish(seconds, self._counts.take(), [_sample(status) for status in self._statuses()])
        except Exception:  # samples are lost without harm; the bundle goes on
            logger.exception("a sample could not be published")


def _sample(status: ConsumerStatus) -> ConsumerSample:
    return ConsumerSample(
        status.id.component,
        status.id.version,
        status.id.context,
        status.state.value,
        status.position,
        status.head,
        status.lag_events,
        errors=status.errors,
        dead=status.dead,
        waiting=status.waiting,
        lag_seconds=status.lag_seconds,
    )
