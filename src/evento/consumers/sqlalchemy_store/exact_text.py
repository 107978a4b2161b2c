"""Text that MySQL and MariaDB compare to the letter."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Dialect, Text
from sqlalchemy.dialects.mysql import LONGTEXT, VARCHAR
from sqlalchemy.dialects.mysql.base import MySQLDialect
from sqlalchemy.types import TypeDecorator, TypeEngine

__all__ = ["ExactText"]


class ExactText(TypeDecorator[str]):
    """Text of at most ``length`` characters (None: 4 GiB) that is equal only to itself.

    Others of the databases' collations take letters of either case for equal, or overlook spaces at the end.
    """

    impl = Text
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__()
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type with the collation of the server, which is known once it is connected."""
        is_mariadb = isinstance(dialect, MySQLDialect) and dialect.is_mariadb
        collation = "utf8mb4_nopad_bin" if is_mariadb else "utf8mb4_0900_bin"
        if self.length is None:
            return dialect.type_descriptor(LONGTEXT(charset="utf8mb4", collation=collation))
        return dialect.type_descriptor(VARCHAR(self.length, charset="utf8mb4", collation=collation))
