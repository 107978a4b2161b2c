"""What a row that was damaged from outside means: an error that names it, never an outage that might pass.

SQLite keeps what it is given: a text may be no UTF-8, a number may be a text. The other databases refuse both; a flag
of MySQL may be any small number.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, ColumnElement, Dialect, Integer, LargeBinary, Text, cast, type_coerce
from sqlalchemy.types import TypeDecorator

from evento.errors import PayloadError

__all__ = ["AnyFlag", "AnyText", "damaged", "integers"]


class AnyText(TypeDecorator[str]):
    """A text of SQLite; bytes that are no UTF-8 are read as lone surrogates (``surrogateescape``)."""

    impl = Text
    cache_ok = True

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Read the bytes, whatever they are."""
        return type_coerce(cast(column, LargeBinary), self)

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        """Return the text."""
        return value.decode(errors="surrogateescape") if isinstance(value, bytes) else value


class AnyFlag(TypeDecorator[bool]):
    """A flag of SQLite; what is no number is read as False."""

    impl = Boolean
    cache_ok = True

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Read the number."""
        return type_coerce(cast(column, Integer), self)


def damaged(row: str, reason: str, mend: str) -> PayloadError:
    """Return the error about a row; ``mend`` says what to do about it."""
    return PayloadError(f"{row} was changed from outside: {reason}; {mend}")


def integers(row: str, mend: str, *, nullable: bool = False, **values: object) -> None:
    """Raise the error about a row unless these values are integers; where they are ``nullable``, or None."""
    for name, value in values.items():
        if not (isinstance(value, int) or (nullable and value is None)):
            raise damaged(row, f"{name} is {value!r:.100} and no integer", mend)
