"""Payloads to JSON and back, with the check at the boundary.

msgspec does not check types on construction, so :func:`seal` does it where a payload leaves its maker: the payload is
encoded, decoded and compared once, and what does not come back is a :class:`~evento.errors.PayloadError`.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar, cast

import msgspec

from evento.errors import PayloadError
from evento.messages.definition import definition_of
from evento.messages.payloads import Payload

__all__ = ["MAX_PAYLOAD_BYTES", "decode", "seal", "seal_result", "seal_state", "unseal_result"]

MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
"""The default limit of one encoded payload."""

_UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError)
P = TypeVar("P", bound=Payload)
_encode = msgspec.json.Encoder().encode
# An escaped NUL, but not the text "\u0000" whose backslash is escaped itself.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def seal(payload: P, limit: int = MAX_PAYLOAD_BYTES) -> tuple[bytes, P]:
    """Return the payload's JSON and the copy decoded from it.

    :raises PayloadError: a field holds what its type does not allow, text that cannot be kept (NUL, lone surrogates),
        a number that JSON cannot hold, or the JSON is longer than ``limit`` bytes.
    """
    definition = definition_of(type(payload))
    if definition.abstract:
        raise PayloadError(f"{definition.name} is abstract: send one of its subclasses", name=definition.name)
    data = _encoded(payload, definition.name, limit)
    try:
        copy = definition.decoder.decode(data)
    except _UNDECODABLE as error:
        raise PayloadError(f"{definition.name}: {error}", name=definition.name) from error
    if copy != payload:
        _compare(payload, copy, definition.name)
    return data, copy


def decode(cls: type[P], data: bytes) -> P:
    """Decode JSON into a payload class; unknown fields are ignored.

    :raises PayloadError: the JSON is malformed or does not fit the class; the message has the path (``$.lines[2]``).
    """
    definition = definition_of(cls)
    try:
        return cast(P, definition.decoder.decode(data))
    except _UNDECODABLE as error:
        raise PayloadError(f"{definition.name}: {error}", name=definition.name) from error


def seal_result(query: type[Payload], result: Any, limit: int = MAX_PAYLOAD_BYTES) -> bytes:
    """Return a query's answer as JSON, checked against the type that the query names."""
    definition = definition_of(query)
    name = f"answer of {definition.name}"
    data = _encoded(result, name, limit)
    try:
        copy = definition.result_decoder.decode(data)
    except _UNDECODABLE as error:
        raise PayloadError(f"{name}: {error}", name=definition.name) from error
    if copy != result:
        _compare(result, copy, name)
    return data


def unseal_result(query: type[Payload], data: bytes) -> Any:
    """Decode the answer to a query into the type that the query names."""
    definition = definition_of(query)
    try:
        return definition.result_decoder.decode(data)
    except _UNDECODABLE as error:
        raise PayloadError(f"answer of {definition.name}: {error}", name=definition.name) from error


def seal_state(state: Any, decoder: msgspec.json.Decoder[Any], name: str) -> bytes:
    """Return a state as JSON, checked to come back from it as it is.

    :param decoder: of the state's type.
    :param name: what messages call it.
    """
    data = _encoded(state, name, MAX_PAYLOAD_BYTES)
    try:
        copy = decoder.decode(data)
    except _UNDECODABLE as error:
        raise PayloadError(f"{name}: {error}", name=name) from error
    if copy != state:
        _compare(state, copy, name)
    return data


def _encoded(value: Any, name: str, limit: int) -> bytes:
    try:
        data = _encode(value)
    except UnicodeEncodeError as error:
        raise PayloadError(f"{name}: a string holds a lone surrogate, which is not text: {error}", name=name) from error
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise PayloadError(f"{name}: {error}", name=name) from error
    if len(data) > limit:
        raise PayloadError(
            f"{name}: {len(data):,} bytes of JSON are over the limit of {limit:,}: keep large data elsewhere and "
            "send a reference",
            name=name,
            size=len(data),
            limit=limit,
        )
    if b"\\u0000" in data and _NUL.search(data):
        raise PayloadError(f"{name}: a string holds a NUL character, which stores cannot keep", name=name)
    return data


def _compare(original: Any, copy: Any, name: str) -> None:
    """Raise unless the two hold the same values."""
    if not _alike(original, copy):
        raise PayloadError(
            f"{name}: a value does not survive JSON as its type says (a non-finite number, or a value of another "
            f"type): sent {original!r}, would arrive as {copy!r}",
            name=name,
        )


def _alike(original: Any, copy: Any) -> bool:
    """Compare what ``==`` does not: lists with tuples, and objects whose class has no ``==``, field by field."""
    if original == copy:
        return True
    if isinstance(original, (list, tuple)) and isinstance(copy, (list, tuple)):
        return len(original) == len(copy) and all(map(_alike, original, copy))
    if isinstance(original, dict) and isinstance(copy, dict):
        return original.keys() == copy.keys() and all(_alike(original[key], copy[key]) for key in original)
    if type(original) is not type(copy):
        return False
    fields: Any = getattr(original, "__struct_fields__", None) or getattr(original, "__dataclass_fields__", ())
    return bool(fields) and all(_alike(getattr(original, name), getattr(copy, name)) for name in fields)
