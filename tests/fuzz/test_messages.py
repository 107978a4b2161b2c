"""Whatever bytes come, the decoders of messages answer with a value or with PayloadError."""

from __future__ import annotations

import enum
import os
from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mutations import hostile_json

from evento import DomainEvent, EventoError, Metadata, PayloadError, Query, View
from evento.errors import ErrorData, error_from_data, error_to_data
from evento.messages import decode, seal, unseal_result

many = settings(max_examples=int(os.environ.get("EVENTO_FUZZ_EXAMPLES", "150")), deadline=None)


class Colour(enum.Enum):
    RED = "red"


class Part(msgspec.Struct):
    name: str
    parts: list["Part"] = []  # noqa: UP037 - the class itself


class EverythingEvent(DomainEvent):
    thing_id: str
    number: int = 0
    real: float = 0.0
    exact: Decimal = Decimal(0)
    at: datetime | None = None
    took: timedelta = timedelta(0)
    id: UUID | None = None
    raw: bytes = b""
    colour: Colour = Colour.RED
    words: set[str] = set()
    counts: dict[int, float] = {}
    pair: tuple[int, str] = (0, "")
    parts: list[Part] = []
    anything: Any = None


class PartView(View):
    name: str
    amount: Decimal


class PartsQuery(Query[list[PartView]]):
    pass


EVENT = (
    b'{"thing_id":"T_1","number":7,"real":1.5,"exact":"1.25","at":"2026-01-31T08:30:00.123456Z","took":"P1DT2S",'
    b'"id":"12345678-1234-5678-1234-567812345678","raw":"AAEC","colour":"red","words":["a","b"],"counts":{"1":2.5},'
    b'"pair":[1,"x"],"parts":[{"name":"p","parts":[{"name":"q"}]}],"anything":{"a":[1,null,true]},"context":"default"}'
)
ERROR = b'{"code":"CommandRejected","type":"CommandRejected","message":"no","data":{"a":1}}'


def test_the_samples_are_valid() -> None:
    assert decode(EverythingEvent, EVENT).number == 7
    msgspec.json.decode(ERROR, type=ErrorData)


@many
@given(hostile_json(EVENT))
def test_payloads(data: bytes) -> None:
    try:
        payload = decode(EverythingEvent, data)
    except PayloadError as error:
        error_to_data(error)
    else:
        with suppress(PayloadError):  # such as NUL, which a decoder lets pass and a sender does not
            seal(payload)


@many
@given(hostile_json(b'[{"name":"p","amount":"1.5"},{"name":"q","amount":"2"}]'))
def test_answers(data: bytes) -> None:
    with suppress(PayloadError):
        unseal_result(PartsQuery, data)


@many
@given(hostile_json(b'{"user":"ann","trace":"00-1"}'))
@example(b'{"user":' + b"[" * 100_000)
def test_metadata(data: bytes) -> None:
    try:
        metadata = Metadata.from_json(data)
    except PayloadError as error:
        error_to_data(error)
    else:
        assert Metadata.from_json(metadata.to_json()) == metadata


@many
@given(hostile_json(ERROR))
def test_errors_that_have_travelled(data: bytes) -> None:
    try:
        received = msgspec.json.decode(data, type=ErrorData)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return
    error = error_from_data(received)
    assert isinstance(error, EventoError)
    again = error_to_data(error)
    assert msgspec.json.decode(msgspec.json.encode(again), type=ErrorData) == again


@many
@given(st.text(), st.dictionaries(st.text(max_size=5), st.integers() | st.floats() | st.binary() | st.text()))
def test_errors_with_any_text_and_data_can_travel(text: str, data: dict[str, object]) -> None:
    received = error_to_data(EventoError(text, **data))
    assert msgspec.json.decode(msgspec.json.encode(received), type=ErrorData) == received
    received = error_to_data(ValueError(text, data))
    assert msgspec.json.decode(msgspec.json.encode(received), type=ErrorData) == received
