"""Sampling: what this instance's handlers did and where its consumers stand, told to the servers once a second."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from evento.components import HandlerDefinition
from evento.components.counting import Count
from evento.consumers import ConsumerId, ConsumerStatus
from evento.messages.registration import ConsumerSample, HandlerSample

__all__ = ["HandlerCounts", "Publish", "Sampler"]

logger = logging.getLogger("evento.bundle")

PERIOD = 1.0
LAG_PERIODS = 5
LAG_TIMEOUT = 2.0

Publish = Callable[[float, Sequence[HandlerSample], Sequence[ConsumerSample]], bool]
"""Sends a sample's parts, the seconds that it spans, handlers and consumers, without waiting; False: it could not."""


@dataclass(slots=True)
class _Count:
    number: int = 0
    errors: int = 0
    seconds: float = 0.0
    slowest: float = 0.0

    def add(self, seconds: float, failed: bool) -> None:
        """Count a run that took so long."""
        self.number += 1
        self.seconds += seconds
        if failed:
            self.errors += 1
        if seconds > self.slowest:
            self.slowest = seconds

    def clear(self) -> None:
        """Begin anew."""
        self.number = self.errors = 0
        self.seconds = self.slowest = 0.0


class HandlerCounts:
    """Counts the runs of each handler."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], _Count] = {}

    def of(self, handler: HandlerDefinition) -> Count:
        """Return what is told of each run of a handler; consumers of one component share it."""
        return self._counts.setdefault((handler.id, handler.payload_name), _Count()).add

    def samples(self) -> list[HandlerSample]:
        """Return what was counted since :meth:`clear`."""
        return [
            HandlerSample(handler, payload, count.number, count.errors, count.seconds, count.slowest)
            for (handler, payload), count in self._counts.items()
            if count.number
        ]

    def clear(self) -> None:
        """Begin anew: what was counted is told."""
        for count in self._counts.values():
            count.clear()


class Sampler:
    """Publishes a sample a second from entering to leaving, and a last one then.

    :param statuses: returns where each consumer stands.
    :param lags: returns how many seconds those are behind that have events before them; asked every few seconds, as it
        asks the stores.
    :param publish: sends a sample.
    """

    def __init__(
        self,
        counts: HandlerCounts,
        *,
        statuses: Callable[[], Sequence[ConsumerStatus]],
        lags: Callable[[], Awaitable[Mapping[ConsumerId, float]]],
        publish: Publish,
    ) -> None:
        self._counts = counts
        self._statuses = statuses
        self._lags = lags
        self._publish = publish
        self._behind: Mapping[ConsumerId, float] = {}
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
        for turn in itertools.count():
            await asyncio.sleep(PERIOD)
            if turn % LAG_PERIODS == 0:
                await self._look_behind()
            self._tell()

    async def _look_behind(self) -> None:
        try:
            async with asyncio.timeout(LAG_TIMEOUT):
                self._behind = await self._lags()
        except Exception as error:  # it is only not known then
            self._behind = {}
            logger.debug("the lag of consumers is not known: %s", error)

    def _tell(self) -> None:
        now = asyncio.get_running_loop().time()
        consumers = [self._sample(status) for status in self._statuses()]
        try:
            if not self._publish(now - self._since, self._counts.samples(), consumers):
                return  # the next one tells of this time too
        except Exception:  # a sample is lost without harm; the bundle goes on
            logger.exception("a sample could not be published")
        self._since = now
        self._counts.clear()

    def _sample(self, status: ConsumerStatus) -> ConsumerSample:
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
            lag_seconds=self._behind.get(status.id) if status.lag_events else 0.0,
        )
