"""What went wrong in PostgreSQL, as Evento's errors: which database, what, and the mend."""

from __future__ import annotations

import ssl

import asyncpg

from evento.errors import EventoError, PayloadError, StoreUnavailable
from evento.state_store.postgres.address import Address

__all__ = ["FAILURES", "bad_data", "is_bad_data", "is_lost", "translated", "unavailable"]

# The driver is confused (InternalClientError) when the server ends a session between two messages of an operation.
_LOST = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, EOFError)  # TimeoutError is an OSError

FAILURES = (asyncpg.PostgresError, *_LOST)
"""Everything that the driver raises."""

_MENDS = {
    "08": "the connection failed: check that the server runs and can be reached",
    "28": "the login was refused: check user and password, and the server's pg_hba.conf",
    "3D": "there is no such database: create it first (CREATE DATABASE)",
    "25006": "it is read-only, such as a standby: give the address of the primary",
    "42501": "the user lacks rights: the first start needs CREATE on the database (or a schema that the user owns), "
    "later ones what docs/operations.md lists",
    "42": "the schema is not what Evento made: check it with `evento store verify`",
    "53100": "its disk is full: free some space; the store goes on by itself",
    "53300": "it takes no more connections: raise max_connections, or open fewer",
    "53": "the server is out of resources; the store goes on by itself",
    "55P03": "another transaction holds a lock for too long: find it in pg_stat_activity",
    "57014": "it took too long and was cancelled",
    "57P03": "the server is starting up or shutting down: try again",
    "57": "the server ended the connection",
    "58": "the server's disk failed: check it",
    "XX": "the database is damaged: check it with `evento store verify`, and restore a backup",
}
_BAD_DATA_CLASSES = ("22", "23", "54")
_BAD_DATA = (AttributeError, OverflowError, TypeError, ValueError, PayloadError)  # ValueError: UnicodeError too
_GONE = ("57P01", "57P02", "57P05", "25P03", "25P04")  # the server ended the session; what ran may have been committed


def unavailable(error: BaseException, address: Address, *, definite: bool = True) -> StoreUnavailable:
    """Return the error for callers; ``definite`` is False when a write may have happened."""
    doubt = "" if definite else "; whether the write happened is unknown: ask again with the same ids"
    failure = StoreUnavailable(f"{address}: {_mend(error)} ({_text(error)}){doubt}", location=str(address))
    failure.definite = definite
    failure.__cause__ = error
    return failure


def translated(error: BaseException, address: Address) -> BaseException:
    """Return Evento's error for one of the driver's, and any other as it is."""
    if isinstance(error, FAILURES) and not isinstance(error, EventoError):
        return unavailable(error, address)
    return error


def is_lost(error: BaseException) -> bool:
    """Whether an operation failed because its connection is gone: whether it took effect is unknown."""
    if isinstance(error, asyncpg.PostgresError):
        return isinstance(error, asyncpg.PostgresConnectionError) or _state(error) in _GONE
    return isinstance(error, _LOST)


def is_bad_data(error: BaseException) -> bool:
    """Whether an error is the fault of what one caller handed in, and of nothing else."""
    if isinstance(error, asyncpg.PostgresError):
        return _state(error).startswith(_BAD_DATA_CLASSES)
    return isinstance(error, _BAD_DATA) and not isinstance(error, FAILURES)


def bad_data(error: Exception) -> PayloadError:
    """Return the error for the caller whose data cannot be stored."""
    if isinstance(error, PayloadError):
        return error
    failure = PayloadError(f"the event store cannot keep this: {_text(error)}; nothing was stored")
    failure.__cause__ = error
    return failure


def _mend(error: BaseException) -> str:
    state = _state(error)
    for length in (5, 2):
        if mend := _MENDS.get(state[:length]):
            return mend
    if isinstance(error, ssl.SSLError):
        return "no secure connection could be made: check the certificate, sslmode and sslrootcert"
    if isinstance(error, TimeoutError):
        return "no answer in time: check that the server runs and can be reached"
    if isinstance(error, _LOST):
        return "it cannot be reached: check that the server runs, its address, and sslmode"
    return "the operation failed"


def _state(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or ""


def _text(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
