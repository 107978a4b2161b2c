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

__all__ = ["derived_id", "is_keepable", "new_id"]

_NAMESPACE = UUID("6b0d4d83-6d0c-5c6a-8f2e-0d5f6f0c4c6e").bytes


# The digit that says the variant has two random bits.
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def new_id() -> str:
    """Return a random id (UUID version 7: milliseconds since 1970, then 74 random bits)."""
    time, random = f"{time_ns() // 1_000_000:012x}", urandom(10).hex()
    return f"{time[:8]}-{time[8:]}-7{random[:3]}-{_VARIANT[random[3]]}{random[4:7]}-{random[8:]}"


def is_keepable(key: str) -> bool:
    """Whether every store can keep a text as a key: it has no NUL and no lone surrogates."""
    return "\0" not in key and (key.isascii() or key == key.encode("utf-8", "replace").decode())


def derived_id(*parts: str) -> str:
    """Return the id (UUID version 5) that these parts, in this order, always give."""
    # Lengths keep ("a", "bc") and ("ab", "c") apart.
    name = "".join(f"{len(part)}:{part}" for part in parts)
    text = sha1(_NAMESPACE + name.encode(), usedforsecurity=False).hexdigest()
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}"
