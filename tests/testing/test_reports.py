"""How values look in the message of a failed expectation, and when two are the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from shop import MailSendCommand, OrderCancelCommand, OrderFindQuery, OrderPlacedEvent, OrderState

from evento import CommandRejected
from evento.testing.reports import Report, same, show


@dataclass(eq=False)
class Line:
    sku: str
    count: int = 1


class Box(msgspec.Struct, eq=False):
    lines: list[Line]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (OrderPlacedEvent("ORD_1", "ann"), "OrderPlacedEvent(order_id='ORD_1', customer='ann')"),
        (
            OrderPlacedEvent("ORD_1", "ann", context="eu"),
            "OrderPlacedEvent(order_id='ORD_1', customer='ann', context='eu')",
        ),
        (OrderCancelCommand("ORD_1"), "OrderCancelCommand(order_id='ORD_1')"),
        (MailSendCommand("x", force_telemetry=True), "MailSendCommand(text='x', force_telemetry=True)"),
        (OrderFindQuery("ORD_1"), "OrderFindQuery(order_id='ORD_1')"),
        (OrderState(deleted=True), "OrderState(customer='', items={}, total=0, deleted=True)"),
        (Box([Line("tea")]), "Box(lines=[Line(sku='tea', count=1)])"),
        ({"a": (1,), 2: (1, None), "c": ()}, "{'a': (1,), 2: (1, None), 'c': ()}"),
        (CommandRejected("no", why="full"), "CommandRejected('no', why='full')"),
        (KeyError("x"), "KeyError(\"'x'\")"),
        (Line, "Line"),
        ({1}, "{1}"),
    ],
)
def test_a_value_in_one_line(value: object, text: str) -> None:
    assert show(value) == text


def test_a_long_value_takes_more_lines() -> None:
    report = Report("Orders", [], "now")
    box = Box([Line("tea", number) for number in range(6)])

    assert str(report.failure("wrong", got={"box": box, "tuple": ("x" * 99,)})).splitlines() == [
        "Orders: wrong",
        "given:",
        "    nothing",
        "when:",
        "    now",
        "got:",
        "    {",
        "        'box': Box(",
        "            lines=[",
        *(f"                Line(sku='tea', count={number})," for number in range(6)),
        "            ],",
        "        ),",
        "        'tuple': (",
        f"            '{'x' * 99}',",
        "        ),",
        "    }",
    ]


@pytest.mark.parametrize(
    ("one", "other", "outcome"),
    [
        (OrderState(total=1), OrderState(total=1), True),
        (OrderState(total=1), OrderState(total=2), False),
        (Box([Line("tea")]), Box([Line("tea")]), True),
        (Box([Line("tea")]), Box([Line("tea", 2)]), False),
        (1, True, False),
        (object(), object(), False),
    ],
)
def test_equality_also_without_an_operator(one: Any, other: Any, outcome: bool) -> None:
    assert same(one, other) is outcome
