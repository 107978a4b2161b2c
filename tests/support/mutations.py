"""Bytes as they may come from outside: random ones, JSON of every shape, and valid JSON that something has changed."""

from __future__ import annotations

import json

from hypothesis import strategies as st

__all__ = ["hostile_json"]

_EXTREMES = [
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"thing_id":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    b'{"thing_id":"T","unknown":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    b"9" * 10_000,
    b"-" + b"9" * 400,
    b"1e400",
    b"1e-400",
    b"1E+99999999999999999999",
    b'{"thing_id":"T","number":' + b"9" * 5_000 + b"}",
    b'{"thing_id":"T","number":1e999}',
    b'{"thing_id":"T","number":0.' + b"1" * 5_000 + b"}",
    b'"\\ud800"',
    b'{"thing_id":"\\udfff"}',
    b'{"thing_id":"\xed\xa0\x80"}',
    b'{"thing_id":"\xff\xfe"}',
    b'{"thing_id":"\\u0000"}',
    b"\xef\xbb\xbf{}",
    b"",
    b"\0",
    b"null",
    b"NaN",
    b'{"thing_id":"T","thing_id":7}',
    b'{"":""}',
]


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def _changed(draw: st.DrawFn, samples: list[bytes]) -> bytes:
    """Valid JSON in which a few spans were cut out, doubled or overwritten."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 8)))
        data[start:end] = draw(
            st.binary(max_size=4)
            | st.sampled_from([b"", bytes(data[start:end]) * 2, b'"', b"{", b"[", b"}", b"]", b",", b"\\u", b"1e999"])
            | _VALUES.map(_as_json)
        )
    return bytes(data)


def _as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def hostile_json(*samples: bytes) -> st.SearchStrategy[bytes]:
    """Return a strategy of bytes for a decoder that takes the ``samples``."""
    return st.one_of(st.binary(max_size=64), _VALUES.map(_as_json), _changed(list(samples)), st.sampled_from(_EXTREMES))
