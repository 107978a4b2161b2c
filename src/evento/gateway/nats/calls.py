"""Calls to a server: a struct goes, an answer comes back, errors as data. The store and the registry speak so."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from evento.errors import ErrorData, PayloadError

__all__ = ["Answer", "Operation", "encode"]

V = TypeVar("V")


class Answer(msgspec.Struct, Generic[V], frozen=True, array_like=True):
    """The answer to a call: an error, or a value (which may be None)."""

    error: ErrorData | None
    value: V | None = None


class Operation:
    """One operation on the wire: how its call and its answer are decoded.

    :param call: the struct that is sent.
    :param result: the type of the answer's value.
    :param format: refuse calls whose field ``format`` is another.
    """

    def __init__(self, call: type[msgspec.Struct], result: Any, *, format: int | None = None) -> None:
        self._format = format
        self._call = msgspec.msgpack.Decoder(call)
        self._answer: msgspec.msgpack.Decoder[Answer[Any]] = msgspec.msgpack.Decoder(Answer[result])

    def decode_call(self, data: bytes) -> Any:
        """Decode what a bundle sent.

        :raises PayloadError: it is no call of this operation, or in a format that is not known here.
        """
        try:
            call = self._call.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise PayloadError(f"a call cannot be read: {error}; upgrade the older side") from None
        if self._format is not None and call.format != self._format:  # type: ignore[attr-defined]
            raise PayloadError(
                f"a call has format {call.format}, and this server knows {self._format}: "  # type: ignore[attr-defined]
                "upgrade the older side"
            )
        return call

    def decode_answer(self, data: bytes) -> Answer[Any]:
        """Decode what a server answered.

        :raises PayloadError: it is no answer to this operation.
        """
        try:
            return self._answer.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise PayloadError(f"an answer cannot be read: {error}; upgrade the older side") from None


_encoder = msgspec.msgpack.Encoder()


def encode(value: msgspec.Struct) -> bytes:
    """Encode a call, an answer or a notice.

    :raises PayloadError: it holds what no encoding has: a lone surrogate, or an int beyond 64 bits.
    """
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError as error:
        raise PayloadError(f"text that cannot be encoded as UTF-8: {error}; leave out lone surrogates") from None
    except OverflowError as error:
        raise PayloadError(f"a number that is too large: {error}; keep it within 64 bits") from None
