"""Requests and replies as bytes.

A frame is a msgpack array whose first field is the version of the format. Fields are only ever added at the end, with a
default: older readers skip them, newer ones do without. Payloads, views and metadata are the JSON that the sender made,
passed on as they are. The request's kind and name are the subject's: who may send there is decided by it.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple, TypeVar

import msgspec

from evento.errors import ErrorData, PayloadError
from evento.messages import EMPTY_METADATA, EventRecord, Metadata, Reply, Request

__all__ = [
    "MAX_NUMBERS",
    "VERSION",
    "Found",
    "Received",
    "decode_found",
    "decode_inquiry",
    "decode_reply",
    "decode_request",
    "encode_found",
    "encode_inquiry",
    "encode_reply",
    "encode_request",
]

VERSION = 1
MAX_NUMBERS = 10_000
"""Requests in one inquiry; one with more is malformed, so that looking for them never takes long."""
_MAX_ID = 200
_UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError)


class _RequestFrame(msgspec.Struct, array_like=True, gc=False):
    version: int
    remaining: float
    sent_at: float
    message_id: str
    correlation_id: str
    causation_id: str | None
    timestamp: int
    keyed: bool
    attempt: int
    boundaries: tuple[str, ...]
    depth: int
    at_least: int | None
    metadata: bytes
    payload: bytes


class _ReplyFrame(msgspec.Struct, array_like=True, gc=False):
    version: int
    event: EventRecord | None
    view: bytes | None
    error: bytes | None
    attempt: int = 0


class _InquiryFrame(msgspec.Struct, array_like=True, gc=False):
    version: int
    numbers: Annotated[list[int], msgspec.Meta(max_length=MAX_NUMBERS)]


class _FoundFrame(msgspec.Struct, array_like=True, gc=False):
    version: int
    running: list[int]
    ended: list[tuple[int, bytes]]


class Found(NamedTuple):
    """What a replica has of the requests that it was asked for.

    The numbers of those that run, and the replies of those that have ended and could not be answered.
    """

    running: list[int]
    ended: list[tuple[int, bytes]]


class Received(NamedTuple):
    """A request as it came.

    With the seconds to its deadline when it was sent, and when that was in the cluster's time (0: unknown).
    """

    request: Request
    remaining: float
    sent_at: float


_encoder = msgspec.msgpack.Encoder()
_requests = msgspec.msgpack.Decoder(_RequestFrame)
_replies = msgspec.msgpack.Decoder(_ReplyFrame)
_inquiries = msgspec.msgpack.Decoder(_InquiryFrame)
_found = msgspec.msgpack.Decoder(_FoundFrame)
_errors = msgspec.json.Decoder(ErrorData)


def encode_request(request: Request, *, attempt: int, remaining: float, sent_at: float) -> bytes:
    """Return the frame of a request; ``attempt`` counts the sends of this request, from 1."""
    return _encoder.encode(
        _RequestFrame(
            VERSION,
            remaining,
            sent_at,
            request.message_id,
            request.correlation_id,
            request.causation_id,
            request.timestamp,
            request.keyed or attempt > 1,
            request.attempt + attempt - 1,
            request.boundaries,
            request.depth,
            request.at_least,
            request.metadata.to_json(),
            request.payload,
        )
    )


def decode_request(data: bytes, kind: str, name: str) -> Received:
    """Read the frame of a request that came for a kind and name.

    :raises PayloadError: it is malformed, of another version, or holds what stores cannot keep.
    """
    try:
        frame = _requests.decode(data)
    except _UNDECODABLE as error:
        raise PayloadError(f"the {kind} {name!r} cannot be read: {error}", name=name) from error
    if frame.version != VERSION:
        raise PayloadError(_other_version(f"the {kind} {name!r}", frame.version), name=name)
    if not (
        frame.message_id
        and _keepable(frame.message_id)
        and _keepable(frame.correlation_id)
        and (frame.causation_id is None or _keepable(frame.causation_id))
    ):
        raise PayloadError(f"the {kind} {name!r} has no id that can be kept", name=name)
    if not (frame.remaining == frame.remaining and frame.sent_at == frame.sent_at and frame.attempt >= 1):
        raise PayloadError(f"the {kind} {name!r} has no deadline or attempt that makes sense", name=name)
    request = Request(
        kind=kind,
        name=name,
        payload=frame.payload,
        metadata=_metadata(frame.metadata),
        message_id=frame.message_id,
        correlation_id=frame.correlation_id,
        causation_id=frame.causation_id,
        timestamp=frame.timestamp,
        keyed=frame.keyed,
        attempt=frame.attempt,
        boundaries=frame.boundaries,
        depth=frame.depth,
        at_least=frame.at_least,
    )
    return Received(request, frame.remaining, frame.sent_at)


def _keepable(id: str) -> bool:
    return len(id) <= _MAX_ID and "\0" not in id


def _metadata(data: bytes) -> Metadata:
    if data == b"{}":
        return EMPTY_METADATA
    metadata = Metadata.from_json(data)
    # Only an escape can bring in what text cannot hold: check it as at its maker's.
    return Metadata(metadata.to_dict()) if b"\\u" in data else metadata


def encode_reply(reply: Reply, attempt: int = 0) -> bytes:
    """Return the frame of a reply; ``attempt`` is that of the run that it comes from, 0: nothing ran."""
    error = None if reply.error is None else msgspec.json.encode(reply.error)
    return _encoder.encode(_ReplyFrame(VERSION, reply.event, reply.view, error, attempt))


def decode_reply(data: bytes, name: str) -> tuple[Reply, int]:
    """Read the frame of the reply to a request of a name, and which attempt's run it comes from.

    :raises PayloadError: it is malformed or of another version.
    """
    try:
        frame = _replies.decode(data)
        error = None if frame.error is None else _errors.decode(frame.error)
    except _UNDECODABLE as failure:
        raise PayloadError(f"the answer to {name!r} cannot be read: {failure}", name=name) from failure
    if frame.version != VERSION:
        raise PayloadError(_other_version(f"the answer to {name!r}", frame.version), name=name)
    return Reply(frame.event, frame.view, error), frame.attempt


def encode_inquiry(numbers: list[int]) -> bytes:
    """Return the frame that asks for requests, by the numbers in their reply subjects."""
    return _encoder.encode(_InquiryFrame(VERSION, numbers))


def decode_inquiry(data: bytes) -> list[int]:
    """Read which requests are asked for.

    :raises PayloadError: it is malformed or of another version.
    """
    return _decoded(_inquiries, data, "an inquiry").numbers


def encode_found(found: Found) -> bytes:
    """Return the frame that answers an inquiry."""
    return _encoder.encode(_FoundFrame(VERSION, found.running, found.ended))


def decode_found(data: bytes) -> Found:
    """Read the answer to an inquiry.

    :raises PayloadError: it is malformed or of another version.
    """
    frame = _decoded(_found, data, "the answer to an inquiry")
    return Found(frame.running, frame.ended)


F = TypeVar("F", _InquiryFrame, _FoundFrame)


def _decoded(decoder: msgspec.msgpack.Decoder[F], data: bytes, what: str) -> F:
    try:
        frame = decoder.decode(data)
    except _UNDECODABLE as failure:
        raise PayloadError(f"{what} cannot be read: {failure}") from failure
    if frame.version != VERSION:
        raise PayloadError(_other_version(what, frame.version))
    return frame


def _other_version(what: str, version: int) -> str:
    return f"{what} has version {version} of the wire format, this process speaks {VERSION}: update the older one"
