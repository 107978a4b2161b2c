"""The client protocol of NATS, as bytes: no sockets here.

https://docs.nats.io/reference/reference-protocols/nats-protocol: lines that end with CRLF, payloads with their length
given ahead.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

__all__ = ["PING", "PONG", "Parser", "ProtocolError", "Sink", "connect_line", "publish_frame", "sub_line", "unsub_line"]

PING = b"PING\r\n"
PONG = b"PONG\r\n"
MAX_LINE = 256 * 1024
"""Longest line that is taken; INFO lists the addresses of a whole cluster."""
MAX_MESSAGE = 64 * 1024 * 1024
"""Largest message that a NATS server can be configured to carry."""
_END = b"\r\n"


class ProtocolError(Exception):
    """What came is not the protocol of NATS."""


class Sink(Protocol):
    """Takes what a :class:`Parser` has found; called in the order of arrival, from within ``feed``."""

    def on_message(self, sid: bytes, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        """Take a message of the subscription ``sid``; ``reply`` and ``headers`` are empty when there are none."""

    def on_info(self, info: dict[str, Any]) -> None:
        """Take what the server says of itself."""

    def on_ping(self) -> None:
        """Take a PING: answer it."""

    def on_pong(self) -> None:
        """Take a PONG: all before it has been seen by the server."""

    def on_error(self, text: str) -> None:
        """Take an error of the server, without its quotes."""


class Parser:
    """Cuts a stream of bytes into messages.

    :param sink: is called for each.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._rest: list[bytes] = []
        self._size = 0
        self._needed = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream, cut anywhere.

        :raises ProtocolError: they are not NATS; the parser is of no use any more.
        """
        if self._rest:
            self._rest.append(data)
            self._size += len(data)
            if self._size < self._needed:
                return
            data = b"".join(self._rest)
        rest = data[self._parse(data) :]
        self._rest = [rest] if rest else []
        self._size = len(rest)

    def _parse(self, data: bytes) -> int:
        """Handle all complete messages; return where the first incomplete one begins."""
        at, end = 0, len(data)
        self._needed = 0
        sink = self._sink
        while at < end:
            line_end = data.find(_END, at)
            if line_end < 0:
                if end - at > MAX_LINE:
                    raise ProtocolError(f"a line of more than {MAX_LINE} bytes")
                break
            verb = data[at : at + 4]
            if verb == b"MSG ":
                words = data[at + 4 : line_end].split()
                head, size = 0, _number(words, -1, (3, 4))
                reply = words[2] if len(words) == 4 else b""
            elif verb == b"HMSG":
                words = data[at + 5 : line_end].split()
                head, size = _number(words, -2, (4, 5)), _number(words, -1, (4, 5))
                if head > size:
                    raise ProtocolError(f"headers of {head} bytes in a message of {size}")
                reply = words[2] if len(words) == 5 else b""
            else:
                self._control(data[at:line_end])
                at = line_end + 2
                continue
            start = line_end + 2
            stop = start + size
            if stop + 2 > end:
                self._needed = stop + 2 - at
                break
            sink.on_message(words[1], words[0], reply, data[start : start + head], data[start + head : stop])
            at = stop + 2
        return at

    def _control(self, line: bytes) -> None:
        word, _, rest = line.partition(b" ")
        if word == b"PING":
            self._sink.on_ping()
        elif word == b"PONG":
            self._sink.on_pong()
        elif word == b"-ERR":
            self._sink.on_error(rest.strip().strip(b"'").decode("utf-8", "replace"))
        elif word == b"INFO":
            try:
                self._sink.on_info(msgspec.json.decode(rest, type=dict[str, Any]))
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                raise ProtocolError(f"INFO that is no JSON object: {error}") from error
        elif word != b"+OK":
            raise ProtocolError(f"{line[:40]!r} is no message of NATS")


def _number(words: list[bytes], index: int, counts: tuple[int, int]) -> int:
    if len(words) not in counts or not words[index].isdigit():
        raise ProtocolError(f"{b' '.join(words)[:80]!r} are no arguments of a message")
    number = int(words[index][:12])
    if number > MAX_MESSAGE + MAX_LINE:
        raise ProtocolError(f"a message of {number} bytes")
    return number


def connect_line(options: dict[str, Any]) -> bytes:
    """Return the line that introduces a client."""
    return b"CONNECT %b\r\n" % msgspec.json.encode(options)


def publish_frame(subject: bytes, reply: bytes, payload: bytes) -> bytes:
    """Return a message to publish; an empty ``reply`` is none."""
    return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)


def sub_line(subject: bytes, queue: bytes, sid: bytes) -> bytes:
    """Return the line that subscribes; an empty ``queue`` is none."""
    return b"SUB %b %b %b\r\n" % (subject, queue, sid)


def unsub_line(sid: bytes) -> bytes:
    """Return the line that ends a subscription."""
    return b"UNSUB %b\r\n" % sid
