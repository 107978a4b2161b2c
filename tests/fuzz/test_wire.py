"""Whatever bytes come over the gateway, its decoders answer with a value or with PayloadError."""

from __future__ import annotations

import os

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evento import CommandRejected, Metadata, PayloadError
from evento.errors import error_from_data, error_to_data
from evento.gateway.nats.wire import VERSION, decode_reply, decode_request, encode_reply, encode_request
from evento.messages import Reply
from evento.testing.conformance.message_bus import RECORD, request_of

many = settings(max_examples=int(os.environ.get("EVENTO_FUZZ_EXAMPLES", "150")), deadline=None)

REQUEST = encode_request(
    request_of("A", metadata=Metadata({"a": "b"}), boundaries=("x",)), attempt=1, remaining=1.5, sent_at=2.5
)
EVENT = encode_reply(Reply(event=RECORD))
ERROR = encode_reply(Reply(error=error_to_data(CommandRejected("no", a=[1, 2**80]))))


@st.composite
def mutated(draw: st.DrawFn, sample: bytes) -> bytes:
    """Draw bytes near a valid frame: some changed, some cut out, some put in."""
    data = bytearray(sample)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


any_value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=8,
)


@many
@given(mutated(REQUEST) | st.binary(max_size=60) | st.lists(any_value, max_size=16).map(msgspec.msgpack.encode))
def test_requests(data: bytes) -> None:
    try:
        received = decode_request(data, "command", "A")
    except PayloadError as error:
        error_to_data(error)
    else:
        assert received.request.message_id
        encode_request(received.request, attempt=1, remaining=received.remaining, sent_at=received.sent_at)


@many
@given(
    mutated(EVENT)
    | mutated(ERROR)
    | st.binary(max_size=60)
    | st.lists(any_value, max_size=5).map(msgspec.msgpack.encode)
)
def test_replies(data: bytes) -> None:
    try:
        reply, _ = decode_reply(data, "A")
    except PayloadError as error:
        error_to_data(error)
    else:
        if reply.error is not None:
            str(error_from_data(reply.error))


def test_deep_nesting() -> None:
    for data in (b"\x91" * 100_000, b"\x81\xa1a" * 100_000):
        with pytest.raises(PayloadError):
            decode_request(data, "command", "A")
        with pytest.raises(PayloadError):
            decode_reply(data, "A")


def test_newer_fields_are_skipped() -> None:
    for data in (REQUEST, EVENT):
        fields = msgspec.msgpack.decode(data)
        longer = msgspec.msgpack.encode([*fields, "new"])
        if data is REQUEST:
            assert decode_request(longer, "command", "A") == decode_request(data, "command", "A")
        else:
            assert decode_reply(longer, "A") == decode_reply(data, "A")


def test_another_version_is_named() -> None:
    newer = [msgspec.msgpack.encode([VERSION + 1, *msgspec.msgpack.decode(data)[1:]]) for data in (REQUEST, EVENT)]
    with pytest.raises(PayloadError, match=f"version {VERSION + 1}"):
        decode_request(newer[0], "command", "A")
    with pytest.raises(PayloadError, match=f"version {VERSION + 1}"):
        decode_reply(newer[1], "A")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (1, float("nan")),
        (2, float("nan")),
        (3, ""),
        (3, "a\0b"),
        (3, "x" * 201),
        (4, "a\0"),
        (5, "a\0"),
        (8, 0),
        (12, b"[]"),
        (12, b'{"a":"\\u0000"}'),
        (12, b'{"a":1}'),
    ],
)
def test_what_no_store_can_keep_is_refused(field: int, value: object) -> None:
    fields = msgspec.msgpack.decode(REQUEST)
    fields[field] = value
    with pytest.raises(PayloadError):
        decode_request(msgspec.msgpack.encode(fields), "command", "A")
