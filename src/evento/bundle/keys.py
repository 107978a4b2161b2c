"""Aggregate and lock ids: what may be one."""

from __future__ import annotations

from evento.errors import PayloadError
from evento.messages import is_keepable

__all__ = ["MAX_KEY", "check_key"]

MAX_KEY = 400
"""The longest aggregate or lock id, in characters."""


def check_key(name: str, what: str, key: object) -> None:
    """Raise :class:`PayloadError` unless ``key`` is a str of 1 to :data:`MAX_KEY` characters that stores can keep."""
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY or not is_keepable(key):
        raise PayloadError(
            f"{name}: the {what} must be a str of 1 to {MAX_KEY} characters, without NUL and lone surrogates, "
            f"not {key!r:.80}"
        )
