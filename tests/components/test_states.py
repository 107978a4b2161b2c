"""The states of aggregates and sagas."""

from __future__ import annotations

from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
import pytest

from evento import AggregateState, FencingToken, ProjectorStatus, SagaState


class Basket(AggregateState):
    lines: dict[str, int] = {}


class Steps(SagaState):
    count: int = 0


def test_states_can_be_changed_and_do_not_share_their_defaults() -> None:
    one, other = Basket(), Basket()
    one.lines["A"] = 1
    one.deleted = True
    assert (other.lines, other.deleted) == ({}, False)


def test_states_survive_json() -> None:
    basket = Basket(lines={"A": 1}, deleted=True)
    steps = Steps(count=2)
    steps.set_association("order_id", "O_1")
    assert msgspec.json.decode(msgspec.json.encode(basket), type=Basket) == basket
    assert msgspec.json.decode(msgspec.json.encode(steps), type=Steps) == steps


def test_associations() -> None:
    steps = Steps()
    steps.set_association("order_id", "O_1")
    steps.set_association("number", 7)
    assert (steps.get_association("order_id"), steps.get_association("number")) == ("O_1", 7)
    assert steps.get_association("other") is None
    steps.unset_association("order_id")
    steps.unset_association("order_id")
    assert steps.associations == {"number": 7}
    assert Steps().associations == {}


def test_associations_are_kept_as_json_has_them() -> None:
    class Colour(Enum):
        RED = "red"

    steps = Steps()
    number = UUID("6b0d4d83-6d0c-5c6a-8f2e-0d5f6f0c4c6e")
    steps.set_association("id", number)
    steps.set_association("colour", Colour.RED)
    steps.set_association("price", Decimal("1.50"))
    steps.set_association("paid", True)
    assert steps.associations == {"id": str(number), "colour": "red", "price": "1.50", "paid": True}
    assert msgspec.json.decode(msgspec.json.encode(steps), type=Steps) == steps


@pytest.mark.parametrize("value", [None, 1.5, ["O_1"], {"order": 1}])
def test_an_association_is_one_value(value: Any) -> None:
    with pytest.raises(TypeError, match="'order_id' must be a text, an integer or a bool"):
        Steps().set_association("order_id", value)


def test_a_saga_ends() -> None:
    steps = Steps()
    assert not steps.ended
    steps.end()
    assert steps.ended


def test_what_is_injected_for_reading_cannot_be_changed() -> None:
    status = ProjectorStatus(head_reached=True, position=5, head=7)
    assert (status.head_reached, status.position, status.head) == (True, 5, 7)
    assert FencingToken(7) == 7
    assert FencingToken(8) > FencingToken(7)
