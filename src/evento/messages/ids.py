"""Message ids: random ones, and ids derived from what caused a message.

Derived ids make resends harmless: whoever handles a message again sends the same ids again (RFC 4122, version 5).
"""

from __future__ import annotations

from hashlib import sha1
from os import urandom
from uuid import UUID

__all__ = ["derived_id", "new_id"]

_NAMESPACE = UUID("6b0d4d83-6d0c-5c6a-8f2e-0d5f6f0c4c6e").bytes


def _dashed(raw: bytes, version: int) -> str:
    text = raw.hex()
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-{version}{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"


def new_id() -> str:
    """Return a random id (UUID version 4)."""
    return _dashed(urandom(16), 4)


def derived_id(*parts: str) -> str:
    """Return the id (UUID version 5) that these parts, in this order, always give."""
    # Lengths keep ("a", "bc") and ("ab", "c") apart.
    name = "".join(f"{len(part)}:{part}" for part in parts)
    return _dashed(sha1(_NAMESPACE + name.encode(), usedforsecurity=False).digest()[:16], 5)
