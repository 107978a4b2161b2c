"""The boundary: what a payload holds must come back from JSON as its types say, or nothing leaves."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evento import DomainEvent, PayloadError, Query, View
from evento.messages import MAX_PAYLOAD_BYTES, decode, seal, seal_result, unseal_result


class Colour(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    BIG = 3


class Word(enum.StrEnum):
    YES = "yes"


class Line(msgspec.Struct):
    sku: str
    tags: list[str] = []


class LongLine(Line):
    extra: int = 0


@dataclass
class Address:
    street: str
    line: Line


@dataclass(eq=False)
class WithoutEquality:
    street: str


class Event(DomainEvent):
    text: str = ""
    number: int = 0
    real: float = 0.0
    flag: bool = False
    numbers: list[int] = []
    words: set[str] = set()
    mapping: dict[str, int] = {}
    pair: tuple[int, str] = (0, "")
    line: Line | None = None
    lines: list[Line] = []
    address: Address | None = None
    unequal: WithoutEquality | None = None
    colour: Colour | None = None
    size: Size | None = None
    money: Decimal | None = None
    uuid: UUID | None = None
    moment: datetime | None = None
    day: date | None = None
    length: timedelta | None = None
    data: bytes = b""
    anything: Any = None
    maybe: float | None = None


@pytest.mark.parametrize(
    "fields",
    [
        {"text": 'grüße, 世界 🎉 \\ " \n \x01'},
        {"text": "\\u0000 written out"},
        {"text": "\\\\u0000 written out with two"},
        {"number": -(2**63)},
        {"number": 2**64 - 1},
        {"number": 2**100},
        {"real": 1e308, "flag": True},
        {"real": 5},
        {"numbers": [1, 2], "words": {"a", "b"}, "mapping": {"a": 1}, "pair": (1, "a")},
        {"line": Line("A", ["x"]), "lines": [Line("B")]},
        {"address": Address("here", Line("A"))},
        {"unequal": WithoutEquality("here")},
        {"colour": Colour.RED, "size": Size.BIG},
        {"money": Decimal("10.10"), "uuid": UUID(int=7)},
        {"moment": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc), "day": date(2026, 1, 2)},
        {"moment": datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=5, minutes=30)))},
        {"moment": datetime(2026, 1, 2)},
        {"length": timedelta(days=1, microseconds=5), "data": b"\x00\xff"},
        {"anything": {"a": [1, None, "x"]}},
        {"maybe": None},
    ],
    ids=str,
)
def test_what_types_allow_comes_back_equal(fields: dict[str, Any]) -> None:
    event = Event(**fields)
    data, copy = seal(event)
    if "unequal" not in fields:
        assert copy == event
    assert decode(Event, data) == copy or "unequal" in fields
    assert copy is not event
    assert [type(getattr(copy, name)) for name in fields] in (
        [type(value) for value in fields.values()],
        [float for _ in fields.values()],
    )


def test_the_copy_shares_nothing_with_the_senders_object() -> None:
    event = Event(lines=[Line("A")])
    _, copy = seal(event)
    event.lines[0].sku = "changed"
    event.lines.append(Line("B"))
    assert copy.lines == [Line("A")]


@pytest.mark.parametrize(
    ("fields", "arrives"),
    [
        ({"numbers": (1, 2)}, {"numbers": [1, 2]}),
        ({"numbers": (2**100, 2)}, {"numbers": [2**100, 2]}),
        ({"lines": (Line("A", ("x",)),)}, {"lines": [Line("A", ["x"])]}),  # type: ignore[arg-type]
        ({"text": Word.YES}, {"text": "yes"}),
        ({"number": Size.BIG}, {"number": 3}),
    ],
    ids=str,
)
def test_what_means_the_same_is_accepted_and_arrives_as_the_type_says(
    fields: dict[str, Any], arrives: dict[str, Any]
) -> None:
    _, copy = seal(Event(**fields))
    assert copy == Event(**arrives)
    assert type(next(iter(arrives.values()))) is type(getattr(copy, next(iter(arrives))))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"number": "1"}, r"Expected `int`, got `str` - at `\$\.number`"),
        ({"number": 1.5}, "Expected `int`, got `float`"),
        ({"number": True}, "Expected `int`, got `bool`"),
        ({"number": None}, "Expected `int`, got `null`"),
        ({"text": 1}, "Expected `str`, got `int`"),
        ({"text": b"bytes"}, "a value does not survive JSON"),
        ({"text": UUID(int=7)}, "a value does not survive JSON"),
        ({"text": Decimal(1)}, "a value does not survive JSON"),
        ({"text": Colour.RED}, "a value does not survive JSON"),
        ({"uuid": str(UUID(int=7))}, "a value does not survive JSON"),
        ({"money": "10.10"}, "a value does not survive JSON"),
        ({"money": Decimal("NaN")}, "a value does not survive JSON"),
        ({"colour": "red"}, "a value does not survive JSON"),
        ({"moment": "2026-01-01T00:00:00Z"}, "a value does not survive JSON"),
        ({"line": {"sku": "A"}}, "a value does not survive JSON"),
        ({"lines": [Line("A"), {"sku": "B"}]}, "a value does not survive JSON"),
        ({"mapping": {1: 1}}, "a value does not survive JSON"),
        ({"unequal": Address("here", Line("A"))}, "a value does not survive JSON"),
        ({"anything": Line("A")}, "a value does not survive JSON"),
        ({"flag": 1}, "Expected `bool`, got `int`"),
        ({"numbers": [1, "2"]}, r"\$\.numbers\[1\]"),
        ({"lines": [{"sku": 1}]}, r"\$\.lines\[0\]\.sku"),
        ({"lines": [Line(1)]}, r"\$\.lines\[0\]\.sku"),  # type: ignore[arg-type]
        ({"line": LongLine("A", extra=1)}, "a value does not survive JSON"),
        ({"colour": "blue"}, "Invalid enum value 'blue'"),
        ({"real": math.nan}, "Expected `float`, got `null`"),
        ({"real": math.inf}, "Expected `float`, got `null`"),
        ({"maybe": math.nan}, "a value does not survive JSON.*non-finite number"),
        ({"maybe": -math.inf}, "would arrive as .*maybe=None"),
        ({"anything": math.nan}, "a value does not survive JSON"),
        ({"anything": object()}, "Encoding objects of type object is unsupported"),
        ({"anything": {object(): 1}}, "Only dicts with"),
        ({"moment": "yesterday"}, "Invalid RFC3339"),
        ({"text": "a\0b"}, "NUL character, which stores cannot keep"),
        ({"text": "\\\0"}, "NUL character"),
        ({"mapping": {"\0": 1}}, "NUL character"),
        ({"text": "\ud800"}, "lone surrogate, which is not text"),
        ({"mapping": {"\udfff": 1}}, "lone surrogate"),
    ],
    ids=str,
)
def test_what_types_do_not_allow_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PayloadError, match=message) as caught:
        seal(Event(**fields))
    assert caught.value.definite
    assert str(caught.value).startswith("Event: ")
    assert caught.value.data["name"] == "Event"


def test_what_refers_to_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(PayloadError, match=r"Event: .*recursion"):
        seal(Event(anything=endless))


def test_what_is_too_large_is_refused() -> None:
    assert MAX_PAYLOAD_BYTES == 8 * 1024 * 1024
    size = len(seal(Event())[0])
    seal(Event(text="x" * 10), limit=size + 10)
    with pytest.raises(PayloadError, match=r"over the limit of .*keep large data elsewhere") as caught:
        seal(Event(text="x" * 11), limit=size + 10)
    assert (caught.value.data["size"], caught.value.data["limit"]) == (size + 11, size + 10)


class TestDecode:
    def test_unknown_fields_are_ignored(self) -> None:
        assert decode(Event, b'{"text": "a", "added_later": [1, {"deep": null}]}') == Event("a")

    def test_missing_fields_have_their_defaults(self) -> None:
        assert decode(Event, b"{}") == Event()

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b'{"number": "1"}',
            b'{"text": "\xff"}',
            b'{"text": "\\ud800"}',
            b'{"lines": [{}]}',
            b'{"anything": ' + b"[" * 100_000,
            b'{"anything": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        ],
        ids=lambda data: repr(data[:30]),
    )
    def test_malformed_json_is_a_payload_error(self, data: bytes) -> None:
        with pytest.raises(PayloadError, match=r"^Event: ") as caught:
            decode(Event, data)
        assert caught.value.data["name"] == "Event"

    def test_the_message_has_the_path(self) -> None:
        with pytest.raises(PayloadError, match=r"\$\.lines\[1\]\.sku"):
            decode(Event, b'{"lines": [{"sku": "A"}, {"sku": 1}]}')

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
    def test_any_bytes_are_decoded_or_refused(self, data: bytes) -> None:
        try:
            event = decode(Event, data)
        except PayloadError:
            return
        assert isinstance(event, Event)


Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text(st.characters()), number=st.integers(), real=st.floats(), anything=Json)
def test_what_is_sealed_comes_back_and_the_rest_is_refused(text: str, number: int, real: float, anything: Any) -> None:
    event = Event(text=text, number=number, real=real, anything=anything)
    try:
        data, copy = seal(event)
    except PayloadError:
        return
    assert decode(Event, data) == copy == event
    assert b"\0" not in data
    data.decode()


class Found(View):
    text: str
    amount: float = 0


class Find(Query[Found | None]):
    pass


class Search(Query[list[Found]]):
    pass


class Ask(Query):
    pass


class TestResults:
    @pytest.mark.parametrize(
        ("query", "result"),
        [(Find, Found("a")), (Find, None), (Search, []), (Search, [Found("a"), Found("b", 2)]), (Ask, {"a": [1]})],
    )
    def test_answers_come_back_equal(self, query: type[Query[Any]], result: Any) -> None:
        assert unseal_result(query, seal_result(query, result)) == result

    @pytest.mark.parametrize(
        ("query", "result", "message"),
        [
            (Find, [Found("a")], "answer of Find: Expected `object"),
            (Search, None, "answer of Search: Expected `array`, got `null`"),
            (Search, [Found(1)], r"answer of Search: .*\$\[0\]\.text"),  # type: ignore[arg-type]
            (Find, Found("a\0"), "answer of Find: a string holds a NUL"),
            (Find, Found("\ud800"), "answer of Find: a string holds a lone surrogate"),
            (Find, Found("a", math.inf), "answer of Find: Expected `float`, got `null`"),
            (Find, object(), "answer of Find: Encoding objects"),
        ],
    )
    def test_answers_of_another_type_are_refused(self, query: type[Query[Any]], result: Any, message: str) -> None:
        with pytest.raises(PayloadError, match=message):
            seal_result(query, result)

    def test_answers_are_limited_in_size(self) -> None:
        with pytest.raises(PayloadError, match="over the limit"):
            seal_result(Search, [Found("a" * 100)], limit=50)

    def test_malformed_answers_are_refused(self) -> None:
        with pytest.raises(PayloadError, match="answer of Search: "):
            unseal_result(Search, b'{"text": 1}')
