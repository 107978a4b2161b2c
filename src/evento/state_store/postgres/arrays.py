"""Arrays as text, in the form that PostgreSQL reads: ``{"a","b",NULL}``.

The driver asks several questions of every element of an array that it is given, in Python, whether it may be an array
itself: for the columns of a batch of appends that was more than half of what the adapter did. A text it just sends.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["numbers", "texts"]

_BETWEEN = "\0"
"""No text that PostgreSQL can keep holds it."""


def numbers(values: Sequence[int | None]) -> str:
    """Return integers, to be cast: ``$1::text::bigint[]``."""
    return "{" + str(list(values))[1:-1].replace("None", "NULL") + "}"


def texts(values: Sequence[str | None]) -> str:
    """Return texts, to be cast: ``$1::text::text[]``. One that holds a NUL is refused by the database."""
    known = [value for value in values if value is not None]
    joined = _BETWEEN.join(known)
    if known and len(known) == len(values) and joined.count(_BETWEEN) == len(values) - 1:  # all at once
        return "{" + _quoted(joined).replace(_BETWEEN, '","') + "}"
    return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in values]) + "}"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
