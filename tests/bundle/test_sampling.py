"""Samples: what was counted is told once, and a failure to tell harms nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from shop import OrderAggregate
from waiting import eventually

from evento.bundle import sampling
from evento.bundle.sampling import HandlerCounts, Sampler
from evento.components import Role, component_definition
from evento.consumers import ConsumerId, ConsumerState, ConsumerStatus
from evento.errors import EventoError, StoreUnavailable
from evento.messages.registration import ConsumerSample, HandlerSample

ORDERS = ConsumerId("shop", "OrderProjector", 1, "*")
[PLACE] = [handler for handler in component_definition(OrderAggregate).handlers if handler.name == "place"]


async def no_lags() -> dict[ConsumerId, float]:
    return {}


def standing(state: ConsumerState, *, lag: int) -> ConsumerStatus:
    return ConsumerStatus(ORDERS, Role.PROJECTOR, state, 5, 5 + lag, lag, not lag, 0, None, None, 0, 0)


@pytest.mark.parametrize(
    ("lag", "asked", "told"),
    [(4, {ORDERS: 1.5}, 1.5), (4, StoreUnavailable("it is gone"), None), (0, {}, 0.0)],
    ids=["behind", "unknown", "at-the-head"],
)
async def test_consumers_tell_how_far_they_are_behind(
    monkeypatch: pytest.MonkeyPatch, lag: int, asked: dict[ConsumerId, float] | EventoError, told: float | None
) -> None:
    monkeypatch.setattr(sampling, "PERIOD", 0.001)
    samples: asyncio.Queue[ConsumerSample] = asyncio.Queue()

    async def lags() -> dict[ConsumerId, float]:
        if isinstance(asked, EventoError):
            raise asked
        return asked

    def publish(seconds: float, handlers: object, consumers: Sequence[ConsumerSample]) -> bool:
        samples.put_nowait(consumers[0])
        return True

    statuses = [standing(ConsumerState.RUNNING, lag=lag)]
    async with Sampler(HandlerCounts(), statuses=lambda: statuses, lags=lags, publish=publish), asyncio.timeout(10):
        sample = await samples.get()

    assert (sample.position, sample.head, sample.lag_events, sample.lag_seconds) == (5, 5 + lag, lag, told)
    assert sample.state == "running"


def test_counts_are_taken_once() -> None:
    counts = HandlerCounts()
    count = counts.of(PLACE)
    assert counts.samples() == []
    count(0.25, False)
    counts.of(PLACE)(0.5, True)

    assert counts.samples() == [HandlerSample("OrderAggregate.place", "OrderPlaceCommand", 2, 1, 0.75, 0.5)]
    counts.clear()
    assert counts.samples() == []
    count(0.25, False)
    assert counts.samples() == [HandlerSample("OrderAggregate.place", "OrderPlaceCommand", 1, 0, 0.25, 0.25)]


async def test_the_last_counts_are_told_at_the_end() -> None:
    counts = HandlerCounts()
    told: list[Sequence[HandlerSample]] = []

    def publish(seconds: float, handlers: Sequence[HandlerSample], consumers: Sequence[ConsumerSample]) -> bool:
        told.append(handlers)
        return True

    async with Sampler(counts, statuses=list, lags=no_lags, publish=publish):
        counts.of(PLACE)(0.25, False)

    assert [handlers[0].count for handlers in told] == [1]


async def test_a_sample_that_cannot_be_published_is_lost_and_the_next_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sampling, "PERIOD", 0.001)
    again = asyncio.Event()
    calls: list[float] = []

    def publish(seconds: float, handlers: object, consumers: object) -> bool:
        calls.append(seconds)
        if len(calls) == 1:
            raise RuntimeError("not now")
        again.set()
        return True

    async with Sampler(HandlerCounts(), statuses=list, lags=no_lags, publish=publish), asyncio.timeout(10):
        await again.wait()

    assert "a sample could not be published" in caplog.text


async def test_what_could_not_be_sent_is_told_with_the_next_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "PERIOD", 0.001)
    told: list[tuple[float, Sequence[HandlerSample]]] = []
    counts = HandlerCounts()

    def publish(seconds: float, handlers: Sequence[HandlerSample], consumers: object) -> bool:
        told.append((seconds, handlers))
        return len(told) > 3

    async with Sampler(counts, statuses=list, lags=no_lags, publish=publish):
        counts.of(PLACE)(0.25, False)
        await eventually(lambda: len(told) >= 5, within=10)

    assert [handlers[0].count for _, handlers in told[:4]] == [1, 1, 1, 1]
    assert told[4][1] == []
    assert sorted(seconds for seconds, _ in told[:4]) == [seconds for seconds, _ in told[:4]]
