"""The QueryGateway: how components and applications ask questions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast

from evento.errors import CapabilityError, PayloadError
from evento.gateway.handling import handling_now
from evento.gateway.requests import RequestSender
from evento.messages import MAX_PAYLOAD_BYTES, Query, Request, new_id, now_micros, seal, unseal_result

__all__ = ["QueryGateway"]

R = TypeVar("R")


class QueryGateway:
    """Sends queries to the one handler of their type and returns its answer."""

    def __init__(self, sender: RequestSender, *, max_payload_bytes: int = MAX_PAYLOAD_BYTES) -> None:
        self._sender = sender
        self._limit = max_payload_bytes

    async def query(
        self,
        query: Query[R],
        *,
        metadata: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        at_least: int | None = None,
    ) -> R:
        """Ask a question and return its view or views.

        Read models follow the events with a delay. ``at_least`` is a position (such as that of
        ``commands.send_message()``): the answer then reflects every event up to it; events parked in the dead event
        queue count as passed. In a handler with the checkpoint's transaction no query takes longer than 8 seconds.

        :raises QueryRejected: the handler said no; :class:`~evento.errors.NotFound` when there is nothing to show.
        :raises ReadModelBehind: the projectors did not reach ``at_least`` before the deadline.
        :raises RequestTimeout: no answer in time.
        :raises PayloadError: query or answer do not hold what their types say.
        """
        handling = handling_now.get()
        if handling is not None and not handling.may_query:
            raise CapabilityError(
                f"{handling.handler} may not send queries: aggregates and services decide on their own state; put what "
                f"{type(query).__name__} would tell into the command"
            )
        if not isinstance(query, Query):
            raise PayloadError(
                f"{type(query).__name__} is not a query: ask a Query, or send a command by commands.send()"
            )
        if at_least is not None and (not isinstance(at_least, int) or at_least < 0):
            raise PayloadError(f"at_least must be a position from 0, not {at_least!r}")
        data, copy = seal(query, self._limit)
        message_id = new_id()
        request = Request(
            kind="query",
            name=type(query).__evento__.name,
            payload=data,
            metadata=self._sender.metadata(metadata, handling),
            message_id=message_id,
            correlation_id=message_id if handling is None else handling.message.correlation_id,
            causation_id=None if handling is None else handling.message.message_id,
            timestamp=now_micros(),
            boundaries=() if handling is None else handling.boundaries,
            depth=0 if handling is None else handling.depth,
            at_least=at_least,
            decoded=copy,
        )
        if handling is not None and handling.longest_request is not None:
            timeout = min(timeout, handling.longest_request)
        reply = await self._sender.request(request, timeout)
        return cast(R, unseal_result(type(query), reply.view or b"null"))
