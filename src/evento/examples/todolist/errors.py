"""Which error is which HTTP status, and the one shape of body that says why.

==============================================================  ======
a rule of the todo list is broken                               409
no such list (or it was deleted), no such page                  404
what was sent is no valid input                                 422
too busy, or the read model is behind: nothing happened         503
no answer in time: it may or may not have happened              504
a defect                                                        500
==============================================================  ======
"""

import logging
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from evento import (
    AggregateAlreadyInitialized,
    AggregateDeleted,
    AggregateNotInitialized,
    CommandRejected,
    ConcurrencyConflict,
    EventoError,
    HandlerNotFound,
    NotFound,
    Overloaded,
    PayloadError,
    QueryRejected,
    ReadModelBehind,
    RequestTimeout,
    Stopped,
    StoreUnavailable,
    TooManyPendingRequests,
)

__all__ = ["Problem", "install_error_handlers", "json_response", "status_of"]

_logger = logging.getLogger(__name__)

# The first class that fits decides; NotFound is a QueryRejected.
_STATUS: tuple[tuple[type[EventoError], HTTPStatus], ...] = (
    (NotFound, HTTPStatus.NOT_FOUND),
    (AggregateNotInitialized, HTTPStatus.NOT_FOUND),
    (AggregateDeleted, HTTPStatus.NOT_FOUND),
    (AggregateAlreadyInitialized, HTTPStatus.CONFLICT),
    (CommandRejected, HTTPStatus.CONFLICT),
    (QueryRejected, HTTPStatus.CONFLICT),
    (PayloadError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (RequestTimeout, HTTPStatus.GATEWAY_TIMEOUT),
    (TooManyPendingRequests, HTTPStatus.SERVICE_UNAVAILABLE),
    (Overloaded, HTTPStatus.SERVICE_UNAVAILABLE),
    (ReadModelBehind, HTTPStatus.SERVICE_UNAVAILABLE),
    (ConcurrencyConflict, HTTPStatus.SERVICE_UNAVAILABLE),
    (StoreUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (Stopped, HTTPStatus.SERVICE_UNAVAILABLE),
    (HandlerNotFound, HTTPStatus.SERVICE_UNAVAILABLE),
)


class Problem(msgspec.Struct):
    """The body of every answer that is not a success: the kind of error, a sentence for people, data for programs."""

    error: str
    message: str
    detail: Any = None


def status_of(error: EventoError) -> HTTPStatus:
    """Return the HTTP status that stands for an error."""
    for cls, status in _STATUS:
        if isinstance(error, cls):
            return status
    return HTTPStatus.INTERNAL_SERVER_ERROR


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer with JSON made by msgspec, which knows views."""
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def install_error_handlers(app: FastAPI) -> None:
    """Make every error of the application a :class:`Problem`."""

    @app.exception_handler(EventoError)
    async def on_evento_error(request: Request, error: EventoError) -> Response:
        status = status_of(error)
        if status is HTTPStatus.INTERNAL_SERVER_ERROR:
            _logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
            return _internal_error()
        headers = {"Retry-After": "1"} if status is HTTPStatus.SERVICE_UNAVAILABLE else None
        return json_response(Problem(error.type, error.message, error.data or None), status, headers)

    @app.exception_handler(RequestValidationError)
    async def on_bad_input(request: Request, error: RequestValidationError) -> Response:
        # Without the input itself: it may hold what cannot be written as text again.
        problems = [{"where": ".".join(map(str, e["loc"])), "why": e["msg"]} for e in error.errors()]
        message = "; ".join(f"{problem['where']}: {problem['why']}" for problem in problems)
        return json_response(Problem("BadInput", message, problems), HTTPStatus.UNPROCESSABLE_ENTITY)

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == HTTPStatus.BAD_REQUEST:  # a body that is no text
            return json_response(Problem("BadInput", str(error.detail)), HTTPStatus.UNPROCESSABLE_ENTITY)
        kind = HTTPStatus(error.status_code).phrase.replace(" ", "")
        headers = dict(error.headers) if error.headers else None
        return json_response(Problem(kind, str(error.detail)), error.status_code, headers)

    @app.exception_handler(Exception)
    async def on_defect(request: Request, error: Exception) -> Response:
        return _internal_error()


def _internal_error() -> Response:
    problem = Problem("InternalError", "Something went wrong on our side; the server's log says what.")
    return json_response(problem, HTTPStatus.INTERNAL_SERVER_ERROR)
