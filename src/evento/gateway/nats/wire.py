"""Requests and replies as bytes.

A frame is a msgpack array whose first field is the version of the format. Fields are only ever added at the end, with a
default: older readers skip them, newer ones do without. Payloads, views and metadata are the JSON that the sender made,
passed on as they are. The request's kind and name are the subject's: who may send there is decided by it.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from evento.errors import ErrorData, PayloadError
from evento.messages import EMPTY_METADATA, EventRecord, Metadata, Reply, Request

__all__ = ["VERSION", "Received", "decode_reply", "decode_request", "encode_reply", "encode_request"]

VERSION = 1
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


def encode_reply(reply: Reply) -> bytes:
    """Return the frame of a reply."""
    error = None if reply.error is None else msgspec.json.encode(reply.error)
    return _encoder.encode(_ReplyFrame(VERSION, reply.event, reply.view, error))


def decode_reply(data: bytes, name: str) -> Reply:
    """Read the frame of the reply to a request of a name.

    :raises PayloadError: it is malformed or of another version.
    """
    try:
        frame = _replies.decode(data)
        error = None if frame.error is None else _errors.decode(frame.error)
    except _UNDECODABLE as failure:
        raise PayloadError(f"the answer to {name!r} cannot be read: {failure}", name=name) from failure
    if frame.version != VERSION:
        raise PayloadError(_other_version(f"the answer to {name!r}", frame.version), name=name)
    return Reply(frame.event, frame.view, error)


def _other_version(what: str, version: int) -> str:
    return f"{what} has version {version} of the wire format, this process speaks {VERSION}: update the older one"
