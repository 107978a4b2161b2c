"""Serving: which answers of a handler count as failures."""

from __future__ import annotations

import asyncio

import pytest

from evento.bundle.admission import Admission
from evento.bundle.serving import served
from evento.errors import CommandRejected, NotFound, QueryRejected, RequestTimeout
from evento.messages import EMPTY_METADATA, Reply, Request

REQUEST = Request(
    kind="command",
    name="OrderPlaceCommand",
    payload=b"{}",
    metadata=EMPTY_METADATA,
    message_id="m-1",
    correlation_id="m-1",
    causation_id=None,
    timestamp=0,
)


class OutOfStock(CommandRejected):
    """A rejection of an application."""


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        (None, False),
        (CommandRejected("no"), False),
        (OutOfStock("no"), False),
        (QueryRejected("no"), False),
        (NotFound("no"), False),
        (RequestTimeout("no"), True),
        (ValueError("no"), True),
    ],
    ids=repr,
)
async def test_a_rejection_is_an_answer_and_no_failure(error: Exception | None, failed: bool) -> None:
    counted: list[bool] = []

    async def handle(request: Request, deadline: float) -> Reply:
        if error is not None:
            raise error
        return Reply()

    serve = served(handle, Admission(limit=1, max_waiting=1), count=lambda seconds, failure: counted.append(failure))
    reply = await serve(REQUEST, asyncio.get_running_loop().time() + 60)
    assert (reply.error is None) == (error is None)
    assert counted == [failed]
