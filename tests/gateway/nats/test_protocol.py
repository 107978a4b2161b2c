"""The protocol of NATS: whole messages out of bytes cut anywhere, and an error for all that is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evento.gateway.nats.protocol import MAX_LINE, Parser, ProtocolError, publish_frame, sub_line, unsub_line


class Heard:
    """Keeps what a parser finds."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def on_message(self, sid: bytes, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        self.all.append((sid, subject, reply, headers, payload))

    def on_info(self, info: dict[str, Any]) -> None:
        self.all.append(info)

    def on_ping(self) -> None:
        self.all.append("ping")

    def on_pong(self) -> None:
        self.all.append("pong")

    def on_error(self, text: str) -> None:
        self.all.append(text)


STREAM = (
    b'INFO {"max_payload":100}\r\n'
    b"MSG a.b 2 5\r\nhello\r\n"
    b"PING\r\n"
    b"MSG a 1 reply.to 4\r\n\r\n\r\n\r\n"
    b"HMSG a 7 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"
    b"HMSG a 7 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"
    b"+OK\r\n"
    b"-ERR 'Unknown Protocol Operation'\r\n"
    b"MSG a 2 0\r\n\r\n"
    b"PONG\r\n"
)
HEARD = [
    {"max_payload": 100},
    (b"2", b"a.b", b"", b"", b"hello"),
    "ping",
    (b"1", b"a", b"reply.to", b"", b"\r\n\r\n"),
    (b"7", b"a", b"", b"NATS/1.0 503\r\n\r\n", b""),
    (b"7", b"a", b"r", b"NATS/1.0\r\n\r\n", b"hi"),
    "Unknown Protocol Operation",
    (b"2", b"a", b"", b"", b""),
    "pong",
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_messages_are_found_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    heard = Heard()
    parser = Parser(heard)
    at = 0
    for cut in [*sorted(cuts), len(STREAM)]:
        parser.feed(STREAM[at:cut])
        at = cut
    assert heard.all == HEARD


def test_a_stream_in_single_bytes() -> None:
    heard = Heard()
    parser = Parser(heard)
    for byte in STREAM:
        parser.feed(bytes([byte]))
    assert heard.all == HEARD


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n",
        b"MSG a\r\n",
        b"MSG a 1 -5\r\n",
        b"MSG a 1 r x 5\r\n",
        b"MSG a 1 99999999999999999999\r\n",
        b"HMSG a 1 20 10\r\n",
        b"HMSG a 1 20\r\n",
        b"INFO [1]\r\n",
        b"INFO {\r\n",
        b"INFO " + b"[" * 100_000 + b"\r\n",
        b"x" * (MAX_LINE + 1),
    ],
)
def test_what_is_no_message_is_an_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        Parser(Heard()).feed(data)


WORDS = st.sampled_from([b"MSG ", b"HMSG ", b"INFO ", b"PING", b"-ERR ", b"\r\n", b" ", b"1", b"a", b"17", b"{}", b"'"])


@given(st.lists(st.one_of(WORDS, st.binary(max_size=8)), max_size=40))
def test_no_bytes_do_anything_but_messages_or_a_protocol_error(pieces: list[bytes]) -> None:
    parser = Parser(Heard())
    try:
        for piece in pieces:
            parser.feed(piece)
    except ProtocolError:
        pass


def test_lines_and_frames() -> None:
    assert publish_frame(b"a.b", b"", b"hi") == b"PUB a.b  2\r\nhi\r\n"
    assert publish_frame(b"a.b", b"r", b"") == b"PUB a.b r 0\r\n\r\n"
    assert sub_line(b"a", b"evento", b"3") == b"SUB a evento 3\r\n"
    assert unsub_line(b"3") == b"UNSUB 3\r\n"
