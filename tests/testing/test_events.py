"""Events with an envelope."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import assert_type

import pytest
from shop import OrderPlacedEvent, PaymentCapturedEvent

from evento import AggregateId, DomainEvent, EventMessage, PayloadError
from evento.testing import event_message

PLACED = OrderPlacedEvent("ORD_1", "ann")


class MarkedEvent(DomainEvent):
    order_id: AggregateId


def test_an_event_without_more() -> None:
    message = event_message(PLACED)

    assert (message.payload, message.name, message.context) == (PLACED, "OrderPlacedEvent", "default")
    assert (message.position, message.version, message.aggregate_id) == (0, None, None)
    assert dict(message.metadata) == {}
    assert message.timestamp.tzinfo is timezone.utc
    assert message.correlation_id == message.causation_id
    assert_type(message, EventMessage[OrderPlacedEvent])


def test_all_that_can_be_given() -> None:
    noon = datetime(2030, 1, 1, 12, tzinfo=timezone.utc)
    message = event_message(
        PLACED,
        metadata={"user": "ann"},
        timestamp=noon,
        aggregate_id="ORD_1",
        context="eu",
        message_id="event",
        correlation_id="first",
        causation_id="command",
    )

    assert message.payload == OrderPlacedEvent("ORD_1", "ann", context="eu")
    assert (dict(message.metadata), message.timestamp, message.context) == ({"user": "ann"}, noon, "eu")
    assert (message.aggregate_id, message.message_id) == ("ORD_1", "event")
    assert (message.correlation_id, message.causation_id) == ("first", "command")


def test_the_kind_is_that_of_the_class() -> None:
    assert event_message(PLACED).record.kind == "domain"
    assert event_message(PaymentCapturedEvent("ORD_1", 1)).record.kind == "service"


def test_an_annotated_aggregate_id_is_found() -> None:
    assert event_message(MarkedEvent("ORD_1")).aggregate_id == "ORD_1"


def test_what_cannot_be_stored() -> None:
    with pytest.raises(PayloadError, match="customer"):
        event_message(OrderPlacedEvent("ORD_1", None))  # type: ignore[arg-type]
    with pytest.raises(PayloadError, match="metadata"):
        event_message(PLACED, metadata={"user": 1})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="time zone"):
        event_message(PLACED, timestamp=datetime(2030, 1, 1))
