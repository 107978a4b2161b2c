"""What the rows of a store must hold, whichever adapter keeps them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

__all__ = ["row_problems", "state_problems"]

_decode_object = msgspec.json.Decoder(dict[str, object]).decode
_decode_texts = msgspec.json.Decoder(dict[str, str]).decode


def row_problems(position: int, kind: str, payload: bytes, metadata: bytes) -> Iterator[str]:
    """Yield what is wrong with a stored event."""
    if kind not in ("domain", "service"):
        yield f"event {position} is of the unknown kind {kind!r}"
    for name, text, decode in (("payload", payload, _decode_object), ("metadata", metadata, _decode_texts)):
        try:
            decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, RecursionError) as error:
            yield f"the {name} of event {position} is not what it should be: {error}"


def state_problems(aggregate_id: str, fingerprint: str, state: bytes) -> Iterator[str]:
    """Yield what is wrong with the state of a snapshot."""
    try:
        msgspec.json.decode(state)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        yield f"snapshot {fingerprint} of aggregate {aggregate_id} is not JSON: {error}"
