"""Serving: what surrounds every command and query handler: admission, and errors turned into data."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import perf_counter

from evento.bundle.admission import Admission
from evento.errors import CommandRejected, EventoError, QueryRejected, RequestTimeout, error_to_data
from evento.gateway import RequestHandler
from evento.messages import Reply, Request

__all__ = ["answer_by", "served"]

logger = logging.getLogger("evento.handlers")


def served(
    handle: Callable[[Request, float], Awaitable[Reply]],
    admission: Admission,
    *,
    ready: Callable[[Request, float], Awaitable[None]] | None = None,
    count: Callable[[float, bool], None] | None = None,
) -> RequestHandler:
    """Wrap a runtime's handler: it waits for admission, is not started after the deadline, and replies its errors.

    :param ready: what a request waits for before it takes a place.
    :param count: is told how long each run took, in seconds, and whether it failed; a rejection is no failure.
    """
    if count is not None:
        handle = _counted(handle, count)

    async def serve(request: Request, deadline: float) -> Reply:
        now = asyncio.get_running_loop().time
        try:
            if ready is not None:
                await ready(request, deadline)
            await admission.enter(request.name, depth=request.depth, deadline=deadline)
        except EventoError as error:
            return Reply(error=error_to_data(error))
        began = now()
        try:
            if began >= deadline:
                raise RequestTimeout(f"{request.name} was not started: its deadline had passed", name=request.name)
            return await handle(request, deadline)
        except EventoError as error:
            return Reply(error=error_to_data(error))
        except Exception as error:
            logger.exception("%s %s (%s) failed in its handler", request.kind, request.name, request.message_id)
            return Reply(error=error_to_data(error))
        finally:
            admission.leave(None if request.depth else now() - began)

    return serve


def _counted(
    handle: Callable[[Request, float], Awaitable[Reply]], count: Callable[[float, bool], None]
) -> Callable[[Request, float], Awaitable[Reply]]:
    async def counted(request: Request, deadline: float) -> Reply:
        began = perf_counter()
        failed = True
        try:
            reply = await handle(request, deadline)
            failed = reply.error is not None
            return reply
        except (CommandRejected, QueryRejected):
            failed = False  # an answer like others: nobody has to mend anything
            raise
        finally:
            count(perf_counter() - began, failed)

    return counted


def answer_by(deadline: float) -> float:
    """Return when a wait must end, so that its own error still reaches the caller before the deadline does."""
    remaining = deadline - asyncio.get_running_loop().time()
    return deadline - min(0.05, max(remaining, 0.0) / 10)
