"""Fingerprints: whether a snapshot was folded by the same code as today's."""

from __future__ import annotations

import hashlib
import inspect

import msgspec

from evento.components import ComponentDefinition, HandlerKind

__all__ = ["state_fingerprint"]


def state_fingerprint(aggregate: ComponentDefinition) -> str:
    """Return a digest of the state's schema, the source of the folding handlers and ``snapshot_version``.

    Helpers that handlers call are not part of it: raise ``snapshot_version`` when they change what is folded.
    """
    parts = [aggregate.name, str(aggregate.snapshot_version)]
    if aggregate.state is not None:
        schema = msgspec.json.schema(aggregate.state)
        parts.append(msgspec.json.encode(schema, order="deterministic").decode())
    for handler in sorted(aggregate.handlers_of(HandlerKind.EVENT_SOURCING), key=lambda handler: handler.payload_name):
        try:
            parts.append(inspect.getsource(handler.function))
        except (OSError, TypeError):
            parts.append(handler.function.__code__.co_code.hex())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
