"""What went wrong in SQLite, as Evento's errors: which file, what, and the mend."""

from __future__ import annotations

import sqlite3

from evento.errors import PayloadError, StoreUnavailable

__all__ = ["bad_data", "is_bad_data", "is_damage", "translated", "undone_at_commit", "unavailable"]

_BUSY, _LOCKED, _READONLY, _IOERR, _CORRUPT, _FULL, _CANTOPEN, _NOTADB, _PERM = 5, 6, 8, 10, 11, 13, 14, 26, 3
_IOERR_WRITE = 778

_MENDS = {
    _FULL: "the disk is full: free some space; the store goes on by itself",
    _IOERR: "the disk failed or is full: check it and its free space; the store goes on by itself",
    _READONLY: "it cannot be written: check the permissions of the file, of its -wal and -shm, and of the folder",
    _PERM: "it cannot be written: check the permissions of the file, of its -wal and -shm, and of the folder",
    _CANTOPEN: "it cannot be opened: its folder must exist and be writable",
    _BUSY: "another program holds a lock on it: end the other program's transaction",
    _LOCKED: "another program holds a lock on it: end the other program's transaction",
    _CORRUPT: "it is damaged: check it with `evento store verify`, and restore a backup",
    _NOTADB: "it is no SQLite database: give another path",
}

_BAD_DATA = (
    AttributeError,
    OverflowError,
    TypeError,
    ValueError,  # UnicodeError too
    PayloadError,
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)


def unavailable(error: sqlite3.Error, location: str, *, definite: bool = True) -> StoreUnavailable:
    """Return the error for callers; ``definite`` is False when a write may have happened."""
    mend = _MENDS.get(_primary_code(error), "the operation failed")
    doubt = "" if definite else "; whether the write happened is unknown: ask again with the same ids"
    failure = StoreUnavailable(f"{location}: {mend} ({error}){doubt}", path=location)
    failure.definite = definite
    failure.__cause__ = error
    return failure


def translated(error: BaseException, location: str) -> BaseException:
    """Return Evento's error for one of SQLite's, and any other as it is."""
    return unavailable(error, location) if isinstance(error, sqlite3.Error) else error


def is_bad_data(error: Exception) -> bool:
    """Whether an error is the fault of what one caller handed in, and of nothing else."""
    return isinstance(error, _BAD_DATA)


def bad_data(error: Exception) -> PayloadError:
    """Return the error for the caller whose data cannot be stored."""
    if isinstance(error, PayloadError):
        return error
    failure = PayloadError(f"the event store cannot keep this: {error}; nothing was stored")
    failure.__cause__ = error
    return failure


def is_damage(error: sqlite3.Error) -> bool:
    """Whether a database is damaged, other than a file that never was one."""
    return _primary_code(error) == _CORRUPT


def undone_at_commit(error: sqlite3.Error) -> bool:
    """Whether a failed COMMIT has certainly stored nothing: it failed before its last page was written."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code == _IOERR_WRITE or _primary_code(error) in (_FULL, _BUSY, _READONLY)


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
