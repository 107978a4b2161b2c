"""Failing handlers: retries, outages that are waited for, and the dead event queue."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from streams import (
    TICK,
    ClockTickedEvent,
    Handle,
    Seen,
    ThingAddedEvent,
    ThingProjector,
    add,
    add_raw,
    group_of,
    things,
)
from waiting import eventually

from evento import EventMessage, Projector, TransientError, event_handler
from evento.consumers import ConsumerGroup, ConsumerId, ConsumerState, SqlConsumerStateStore, StoredConsumer
from evento.consumers.failures import Backoff, is_transient
from evento.errors import (
    CommandRejected,
    ConcurrencyConflict,
    HandlerError,
    HandlerNotFound,
    LeaseLost,
    Overloaded,
    PayloadError,
    ReadModelBehind,
    RequestTimeout,
    Stopped,
    StoreUnavailable,
    TooManyPendingRequests,
)
from evento.gateway import current_handling
from evento.state_store import StateStore

THINGS = ConsumerId("test_bundle", "ThingProjector", 1, "*")


class Failing:
    """A handle that raises what it is told for a position, and counts its runs."""

    def __init__(self, *errors: BaseException | None, at: int = 1) -> None:
        self.errors = list(errors)
        self.at = at
        self.runs: list[int] = []
        self.seen = Seen()

    async def __call__(self, message: EventMessage[Any]) -> None:
        self.runs.append(message.position)
        if message.position == self.at and self.errors:
            error = self.errors.pop(0) if len(self.errors) > 1 else self.errors[0]
            if error is not None:
                raise error
        await self.seen(message)


async def stored(state: SqlConsumerStateStore, consumer: ConsumerId = THINGS) -> StoredConsumer:
    found = await state.load(consumer)
    assert found is not None
    return found


# What is permanent


async def test_a_permanent_failure_is_retried_then_parked_with_its_error(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    await add(events, *things(3))
    handle = Failing(ValueError("größe is missing"), at=2)
    async with group_of(events, state, ThingProjector(handle)) as group:
        await group.caught_up(10)
        (status,) = group.statuses()
    assert handle.runs == [1, 2, 2, 2, 3]
    assert handle.seen.positions == [1, 3]
    (dead,) = await state.dead_events(THINGS)
    assert (dead.position, dead.event_name, dead.aggregate_id, dead.key) == (2, "ThingAddedEvent", "T_1", "T_1")
    assert (dead.error_type, dead.error_message, dead.attempts) == ("ValueError", "größe is missing", 3)
    assert "in on_added" in dead.traceback
    assert not dead.waiting
    record = await events.event(2)
    assert record is not None
    assert dead.event_id == record.event_id
    assert (status.dead, status.waiting, status.errors, status.position) == (1, 0, 0, 3)
    assert status.last_error == "ValueError: größe is missing"


async def test_a_failure_that_passes_within_the_retries_is_forgotten(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    await add(events, *things(2))
    handle = Failing(ValueError(), ValueError(), None)
    async with group_of(events, state, ThingProjector(handle)) as group:
        await group.caught_up(10)
    assert handle.seen.positions == [1, 2]
    found = await stored(state)
    assert (found.dead, found.errors, found.failing_since) == (0, 0, None)


async def test_a_retry_sends_the_same_ids_and_tells_its_attempt(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    runs: list[tuple[int, str]] = []

    async def handle(message: EventMessage[Any]) -> None:
        handling = current_handling()
        assert handling is not None
        runs.append((handling.attempt, handling.next_id("Command", "X")))
        if len(runs) < 3:
            raise ValueError

    await add(events, *things(1))
    async with group_of(events, state, ThingProjector(handle)) as group:
        await group.caught_up(10)
    assert [attempt for attempt, _ in runs] == [1, 2, 3]
    assert len({message_id for _, message_id in runs}) == 1


async def test_later_events_of_the_aggregate_wait_others_do_not(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    await add(
        events,
        ThingAddedEvent("A"),
        ThingAddedEvent("B"),
        ClockTickedEvent(1),
        ThingAddedEvent("A"),
        ThingAddedEvent("B"),
        ClockTickedEvent(2),
        ThingAddedEvent("A"),
    )
    handle = Failing(ValueError())
    async with group_of(events, state, ThingProjector(handle)) as group:
        await group.caught_up(10)
        (status,) = group.statuses()
        assert (status.dead, status.waiting, status.position) == (1, 2, 7)
    assert handle.seen.positions == [2, 3, 5, 6]
    parked = await state.dead_events(THINGS)
    assert [(dead.position, dead.waiting, dead.key) for dead in parked] == [
        (1, False, "A"),
        (4, True, "A"),
        (7, True, "A"),
    ]
    assert [(dead.error_type, dead.attempts) for dead in parked[1:]] == [("", 0), ("", 0)]


async def test_an_event_without_an_aggregate_holds_nothing_back(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    await add(events, ClockTickedEvent(1), ClockTickedEvent(2), ThingAddedEvent("A"))
    handle = Failing(ValueError())
    async with group_of(events, state, ThingProjector(handle)) as group:
        await group.caught_up(10)
    assert handle.seen.positions == [2, 3]
    (dead,) = await state.dead_events(THINGS)
    assert dead.key is None


async def test_events_go_on_waiting_after_a_restart(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, ThingAddedEvent("A"))
    async with group_of(events, state, ThingProjector(Failing(ValueError()))) as group:
        await group.caught_up(10)
    await add(events, ThingAddedEvent("A"), ThingAddedEvent("B"))
    seen = Seen()
    async with group_of(events, state, ThingProjector(seen)) as group:
        await group.caught_up(10)
        (status,) = group.statuses()
        assert (status.dead, status.waiting) == (1, 1)
    assert seen.positions == [3]


async def test_an_undecodable_payload_is_parked_at_once(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add_raw(events, "ThingAddedEvent", "A", b'{"thing_id": 7}')
    await add_raw(events, "ThingAddedEvent", "B", b'{"thing_id": "B", "a new field": 1}')
    await add_raw(events, "ThingAddedEvent", "C", b"not JSON")
    seen = Seen()
    async with group_of(events, state, ThingProjector(seen)) as group:
        await group.caught_up(10)
    assert seen.positions == [2]
    first, second = await state.dead_events(THINGS)
    assert (first.position, first.error_type, first.attempts) == (1, "PayloadError", 1)
    assert "ThingAddedEvent: Expected `str`, got `int` - at `$.thing_id`" in first.error_message
    assert (second.position, second.error_type) == (3, "PayloadError")


class PatientProjector(Projector, version=1):
    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    @event_handler(retry=-1, retry_delay=timedelta(0))
    async def on_added(self, event: ThingAddedEvent, message: EventMessage[ThingAddedEvent]) -> None:
        await self._handle(message)

    @event_handler(retry=0)
    async def on_ticked(self, event: ClockTickedEvent, message: EventMessage[ClockTickedEvent]) -> None:
        await self._handle(message)


async def test_minus_one_retries_for_ever(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *things(2))
    handle = Failing(*[ValueError()] * 7, None)
    async with group_of(events, state, PatientProjector(handle)) as group:
        await group.caught_up(10)
    assert handle.runs == [1] * 8 + [2]


async def test_zero_retries_never(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, ClockTickedEvent(1))
    handle = Failing(ValueError())
    async with group_of(events, state, PatientProjector(handle)) as group:
        await group.caught_up(10)
    assert handle.runs == [1]


async def test_a_cancellation_that_the_handler_caused_itself_is_a_failure(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    await add(events, *things(2))
    handle = Failing(asyncio.CancelledError("an inner task was cancelled"))
    async with group_of(events, state, ThingProjector(handle)) as group:
        await group.caught_up(10)
    assert handle.runs == [1, 1, 1, 2]
    (dead,) = await state.dead_events(THINGS)
    assert dead.error_type == "CancelledError"


# What passes by itself

OUTAGES: list[BaseException] = [
    HandlerNotFound("no"),
    RequestTimeout("no"),
    TooManyPendingRequests("no"),
    Overloaded("no"),
    ConcurrencyConflict("no"),
    StoreUnavailable("no"),
    ReadModelBehind("no"),
    TransientError("no"),
    Stopped("no"),
    LeaseLost("no"),
    ConnectionResetError("no"),
    OperationalError("SELECT 1", {}, Exception("no")),
    DBAPIError("SELECT 1", {}, Exception("no"), connection_invalidated=True),
]
OWN_FAILURES: list[BaseException] = [
    ValueError("timed out: a word alone means nothing"),
    TimeoutError("no"),
    CommandRejected("no"),
    HandlerError("no"),
    PayloadError("no"),
    IntegrityError("INSERT", {}, Exception("no")),
]


def caused(error: Exception, cause: BaseException) -> Exception:
    try:
        raise error from cause
    except Exception as raised:
        return raised


def during(error: Exception, handled: BaseException) -> Exception:
    try:
        try:
            raise handled
        except BaseException:
            raise error  # noqa: B904 - without a cause, on purpose
    except Exception as raised:
        return raised


@pytest.mark.parametrize("error", OUTAGES, ids=lambda error: type(error).__name__)
def test_outages_are_transient(error: Exception) -> None:
    assert is_transient(error)
    assert is_transient(caused(ValueError(), error))
    assert is_transient(caused(KeyError(), caused(ValueError(), error)))
    assert not is_transient(during(ValueError(), error))


@pytest.mark.parametrize("error", OWN_FAILURES, ids=lambda error: type(error).__name__)
def test_everything_else_is_permanent(error: Exception) -> None:
    assert not is_transient(error)


def test_a_circle_of_causes_is_no_endless_loop() -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert not is_transient(first)


def test_a_group_is_transient_when_all_in_it_is() -> None:
    down, broken = StoreUnavailable("no"), ValueError("no")
    assert is_transient(ExceptionGroup("two sends", [down, ExceptionGroup("more", [HandlerNotFound("no")])]))
    assert is_transient(caused(ValueError(), ExceptionGroup("two sends", [down, down])))
    assert not is_transient(ExceptionGroup("two sends", [down, broken]))
    assert not is_transient(caused(broken, ExceptionGroup("raised from its group", [broken])))


def test_waits_double_up_to_half_a_minute() -> None:
    backoff = Backoff(1.0, jitter=0)
    assert [backoff.next() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    backoff.reset()
    assert backoff.next() == 1
    assert all(0.8 <= Backoff(1.0).next() <= 1.2 for _ in range(50))
    assert Backoff(0).next() > 0


async def test_an_outage_is_waited_for_however_long(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *things(2))
    errors = [caused(ValueError(), RequestTimeout("no")), TransientError("not now"), ConnectionRefusedError()]
    handle = Failing(*errors, *errors, None)
    async with group_of(events, state, ThingProjector(handle)) as group:
        await group.caught_up(20)
    assert handle.runs == [1] * 7 + [2]
    assert (await stored(state)).dead == 0


async def test_outages_do_not_use_the_retries_up(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *things(1))
    handle = Failing(ValueError(), TransientError(), ValueError(), TransientError(), None)
    async with group_of(events, state, ThingProjector(handle)) as group:
        await group.caught_up(10)
    assert handle.seen.positions == [1]


async def test_failures_show_while_they_last(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *things(3))
    handle = Failing(TransientError("the mail server is down"), at=3)
    async with group_of(events, state, ThingProjector(handle)) as group:
        await eventually(lambda: group.statuses()[0].errors >= 2)
        (status,) = group.statuses()
        assert status.state is ConsumerState.RETRYING
        assert not status.healthy
        assert status.last_error == "TransientError: the mail server is down"
        assert status.failing_since is not None
        assert status.position == 2  # what was handled before does not wait for the outage
        assert (await stored(state)).errors >= 1
        handle.errors = [None]
        await group.caught_up(10)
        (status,) = group.statuses()
        assert (status.state, status.errors, status.failing_since) == (ConsumerState.RUNNING, 0, None)
    found = await stored(state)
    assert (found.errors, found.last_error) == (0, "TransientError: the mail server is down")


# Stopping in between


@pytest.mark.parametrize("error", [ValueError("no"), TransientError("no")], ids=["permanent", "transient"])
async def test_a_stop_during_a_retry_neither_parks_nor_skips(
    events: StateStore, state: SqlConsumerStateStore, error: Exception
) -> None:
    class SlowRetryProjector(ThingProjector, version=1):
        @event_handler(retry=3, retry_delay=timedelta(hours=1))
        async def on_added(self, event: ThingAddedEvent, message: EventMessage[ThingAddedEvent]) -> None:
            await self._handle(message)

    consumer = ConsumerId("test_bundle", "SlowRetryProjector", 1, "*")
    await add(events, *things(3))
    handle = Failing(error, at=2)
    async with asyncio.timeout(10):
        async with group_of(events, state, SlowRetryProjector(handle)) as group:
            await eventually(lambda: group.statuses()[0].errors == 1)
    found = await stored(state, consumer)
    assert (found.checkpoint.position, found.dead) == (1, 0)
    seen = Seen()
    async with group_of(events, state, SlowRetryProjector(seen)) as group:
        await group.caught_up(10)
    assert seen.positions == [2, 3]


# Too many


async def test_a_hundred_dead_events_pause_the_consumer(
    events: StateStore, state: SqlConsumerStateStore, caplog: pytest.LogCaptureFixture
) -> None:
    await add(events, *(ClockTickedEvent(number) for number in range(105)))

    async def fail(message: object) -> None:
        raise ValueError("no such table")

    with caplog.at_level(logging.CRITICAL, "evento.consumers"):
        async with group_of(events, state, PatientProjector(fail)) as group:
            await _paused(group)
            (status,) = group.statuses()
            assert not status.healthy
            assert (status.dead, status.position) == (100, 100)
            with pytest.raises(ReadModelBehind, match=r"at 100 \(paused\)"):
                await group.caught_up(0.05)
        # Each restart tries one more event, so that restarting in a loop empties no stream into the queue.
        async with group_of(events, state, PatientProjector(fail)) as group:
            await _paused(group)
            assert group.statuses()[0].dead == 101
    seen = Seen()
    async with group_of(events, state, PatientProjector(seen)) as group:
        await group.caught_up(10)
        assert group.statuses()[0].healthy
    assert seen.positions == [102, 103, 104, 105]


async def _paused(group: ConsumerGroup) -> None:
    await eventually(lambda: group.statuses()[0].state is ConsumerState.PAUSED, within=30)


async def test_a_success_in_between_keeps_the_consumer_at_work(
    events: StateStore, state: SqlConsumerStateStore, caplog: pytest.LogCaptureFixture
) -> None:
    await add(events, *(ClockTickedEvent(number) for number in range(150)))

    async def fail(message: EventMessage[Any]) -> None:
        if message.position != 75:
            raise ValueError

    with caplog.at_level(logging.CRITICAL, "evento.consumers"):
        async with group_of(events, state, PatientProjector(fail)) as group:
            await group.caught_up(40)
            assert group.statuses()[0].dead == 149


async def test_waiting_events_are_no_failures(
    events: StateStore, state: SqlConsumerStateStore, caplog: pytest.LogCaptureFixture
) -> None:
    await add(events, *(ThingAddedEvent("A") for _ in range(300)))
    with caplog.at_level(logging.CRITICAL, "evento.consumers"):
        async with group_of(events, state, ThingProjector(Failing(ValueError()))) as group:
            await group.caught_up(10)
            assert (group.statuses()[0].dead, group.statuses()[0].waiting) == (1, 299)


async def test_the_gate_does_not_wait_for_a_paused_projector(
    events: StateStore, state: SqlConsumerStateStore, caplog: pytest.LogCaptureFixture
) -> None:
    class GateProjector(Projector, version=1, wait_for_head_reached=True):
        @event_handler(retry=0, retry_delay=TICK)
        def on_ticked(self, event: ClockTickedEvent) -> None:
            raise ValueError("no such table")

    await add(events, *(ClockTickedEvent(number) for number in range(105)))
    with caplog.at_level(logging.CRITICAL, "evento.consumers"):
        async with group_of(events, state, GateProjector()) as group:
            with pytest.raises(ReadModelBehind, match=r"GateProjector.*paused itself at position 100.*no such table"):
                await group.ready()


class Unspeakable(Exception):
    """An error that cannot say what it is about."""

    def __str__(self) -> str:
        raise AttributeError("no such attribute")


async def test_an_error_that_cannot_be_told_is_parked_like_others(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    await add(events, *things(2))
    handle = Failing(Unspeakable())
    async with group_of(events, state, ThingProjector(handle)) as group:
        await group.caught_up(10)
        await group.administration.retry(THINGS, all=True)
        await group.caught_up(10)
    (dead,) = await state.dead_events(THINGS)
    assert (dead.error_type, dead.attempts) == ("Unspeakable", 6)
    assert "cannot be told" in dead.error_message
    assert handle.seen.positions == [2]
