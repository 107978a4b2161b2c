"""What a failed command answers: the truth about its message id, not only about this attempt."""

from __future__ import annotations

from evento.errors import EventoError, error_to_data
from evento.gateway.requests import NOT_NOW
from evento.messages import Request
from evento.state_store import LookupResult, StateStore

__all__ = ["known_outcome"]


async def known_outcome(store: StateStore, request: Request, error: Exception) -> LookupResult:
    """Return what the store knows of a command whose handling failed with ``error``; None: answer the error.

    A command that took effect in a former attempt is answered with its event. While a former attempt may still be
    running (a resend), a rejection is written down as a tombstone first, so that it stays true; a failure that only
    means "not now" is no rejection: it is answered as indeterminate then.
    """
    if not request.keyed:
        return None
    if request.attempt == 1:
        return await store.lookup(request.message_id)
    if not isinstance(error, (*NOT_NOW, ConnectionError)):
        return await store.reject(request.message_id, error_to_data(error))
    known = await store.lookup(request.message_id)
    if known is None and isinstance(error, EventoError):
        error.definite = False
    return known
