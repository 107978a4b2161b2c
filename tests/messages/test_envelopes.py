"""Envelopes: a payload with its identity, its cause and what travels with it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from evento import (
    AggregateId,
    CommandMessage,
    DomainCommand,
    DomainEvent,
    EventMessage,
    InvocationMessage,
    Message,
    Metadata,
    Query,
    QueryMessage,
)
from evento.messages import EMPTY_METADATA, EventRecord, Reply, Request, from_micros, now_micros, to_micros

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)


class Place(DomainCommand):
    key: AggregateId


class Placed(DomainEvent):
    key: str


class Find(Query[int]):
    key: str


def request(**changes: Any) -> Request:
    facts: dict[str, Any] = {
        "kind": "command",
        "name": "Place",
        "payload": b'{"key":"K"}',
        "metadata": Metadata({"user": "ann"}),
        "message_id": "m-2",
        "correlation_id": "m-1",
        "causation_id": "m-1",
        "timestamp": to_micros(MOMENT),
    }
    return Request(**{**facts, **changes})


RECORD = EventRecord(
    position=7,
    context="eu",
    aggregate_id="K",
    version=3,
    name="Placed",
    schema_version=1,
    kind="domain",
    payload=b'{"key":"K"}',
    metadata=b'{"user":"ann"}',
    event_id="e-1",
    command_id="m-2",
    correlation_id="m-1",
    causation_id="m-2",
    timestamp=to_micros(MOMENT),
)


def common(message: Message[Any]) -> tuple[Any, ...]:
    return (
        message.name,
        message.metadata,
        message.timestamp,
        message.message_id,
        message.correlation_id,
        message.causation_id,
    )


def test_a_command_message() -> None:
    message = CommandMessage(Place("K"), request(attempt=2))
    assert message.payload == Place("K")
    assert common(message) == ("Place", {"user": "ann"}, MOMENT, "m-2", "m-1", "m-1")
    assert message.attempt == 2
    assert CommandMessage(Place("K"), request()).attempt == 1


def test_a_query_message() -> None:
    message = QueryMessage(Find("K"), request(kind="query", name="Find", causation_id=None))
    assert message.payload == Find("K")
    assert common(message) == ("Find", {"user": "ann"}, MOMENT, "m-2", "m-1", None)


def test_an_event_message() -> None:
    message = EventMessage(Placed("K"), RECORD)
    assert message.payload == Placed("K")
    assert common(message) == ("Placed", {"user": "ann"}, MOMENT, "e-1", "m-1", "m-2")
    assert (message.position, message.version, message.context, message.aggregate_id) == (7, 3, "eu", "K")
    assert message.metadata is message.metadata
    known = Metadata({"user": "bob"})
    assert EventMessage(Placed("K"), RECORD, known).metadata is known


def test_an_event_message_without_an_aggregate() -> None:
    message = EventMessage(Placed("K"), msgspec.structs.replace(RECORD, aggregate_id=None, version=None))
    assert (message.aggregate_id, message.version) == (None, None)


def test_an_invocation_message() -> None:
    first = InvocationMessage({"key": "K"}, name="Shop::order", message_id="i-1", timestamp=to_micros(MOMENT))
    assert common(first) == ("Shop::order", {}, MOMENT, "i-1", "i-1", None)
    assert first.payload == {"key": "K"}
    inner: InvocationMessage[dict[str, str]] = InvocationMessage(
        {}, name="Shop::pay", message_id="i-2", correlation_id="i-1", causation_id="i-1", metadata=Metadata({"a": "b"})
    )
    assert (inner.correlation_id, inner.causation_id, inner.metadata["a"]) == ("i-1", "i-1", "b")
    assert abs(inner.timestamp - datetime.now(timezone.utc)) < timedelta(minutes=1)


@pytest.mark.parametrize("value", [request(), RECORD, Reply()])
def test_what_travels_cannot_be_changed(value: Any) -> None:
    with pytest.raises(AttributeError):
        setattr(value, value.__struct_fields__[0], None)
    with pytest.raises(AttributeError):
        EventMessage(Placed("K"), RECORD).payload = Placed("L")  # type: ignore[misc]


def test_times_are_exact_to_the_microsecond() -> None:
    assert from_micros(to_micros(MOMENT)) == MOMENT
    assert from_micros(0) == datetime(1970, 1, 1, tzinfo=timezone.utc)
    assert to_micros(datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=timezone.utc)) == -1
    assert abs(from_micros(now_micros()) - datetime.now(timezone.utc)) < timedelta(minutes=1)
    assert EMPTY_METADATA == {}
