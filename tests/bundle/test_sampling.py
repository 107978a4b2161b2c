"""Samples: what was counted is told once, and a failure to tell harms nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from evento.bundle import sampling
from evento.bundle.sampling import HandlerCounts, Sampler
from evento.messages.registration import ConsumerSample, HandlerSample


def test_counts_are_taken_once() -> None:
    counts = HandlerCounts()
    counts.add("Orders.place", "OrderPlaceCommand", 0.25, False)
    counts.add("Orders.place", "OrderPlaceCommand", 0.5, True)

    assert counts.take() == [HandlerSample("Orders.place", "OrderPlaceCommand", 2, 1, 0.75, 0.5)]
    assert counts.take() == []


async def test_the_last_counts_are_told_at_the_end() -> None:
    counts = HandlerCounts()
    told: list[Sequence[HandlerSample]] = []

    def publish(seconds: float, handlers: Sequence[HandlerSample], consumers: Sequence[ConsumerSample]) -> None:
        told.append(handlers)

    async with Sampler(counts, statuses=list, publish=publish):
        counts.add("Orders.place", "OrderPlaceCommand", 0.25, False)

    assert [handlers[0].count for handlers in told] == [1]


async def test_a_sample_that_cannot_be_published_is_lost_and_the_next_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sampling, "PERIOD", 0.001)
    again = asyncio.Event()
    calls: list[float] = []

    def publish(seconds: float, handlers: object, consumers: object) -> None:
        calls.append(seconds)
        if len(calls) == 1:
            raise RuntimeError("not now")
        again.set()

    async with Sampler(HandlerCounts(), statuses=list, publish=publish), asyncio.timeout(10):
        await again.wait()

    assert "a sample could not be published" in caplog.text
