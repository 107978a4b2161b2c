"""AdministrationService: operators of a cluster see and direct the consumers of an instance through its gateway."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Self, TypeAlias

from evento.consumers import ConsumerAdministration, ConsumerStatus, DeadEvent
from evento.consumers.views import dead_event_view, id_of, status_view
from evento.errors import Overloaded, error_to_data
from evento.gateway.nats import Delivery, NatsConnection, Subscription
from evento.gateway.nats.administration import ADMINISTRATION
from evento.gateway.nats.calls import Answer, encode
from evento.messages.consumers import (
    ConsumerCall,
    ConsumersCall,
    ConsumersPage,
    ConsumerView,
    DeadEventsCall,
    DeadEventsPage,
    DeadEventView,
    SelectionCall,
)

__all__ = ["AdministrationService"]

logger = logging.getLogger("evento.bundle")

MAX_RUNNING = 16
MAX_SECONDS = 60.0
_STOP_SECONDS = 5.0
_MAX_CONSUMERS = 200
_MAX_EVENTS = 1000
_OVERHEAD = 512
_MAX_TEXT = 16 * 1024

Run: TypeAlias = Callable[[Any], Awaitable[Any]]


class AdministrationService:
    """Answers what servers and the administrator ask one instance of a bundle about its consumers.

    A few requests run at a time, each for a minute at most; what is more is answered with
    :class:`~evento.errors.Overloaded`. Pages are cut to what a message holds.
    """

    def __init__(
        self,
        connection: NatsConnection,
        administration: ConsumerAdministration,
        *,
        bundle_id: str,
        instance_id: str,
    ) -> None:
        self._connection = connection
        self._administration = administration
        self._bundle_id = bundle_id
        self._instance_id = instance_id
        self._room = connection.max_payload // 2
        self._subscriptions: list[Subscription] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Start answering."""
        administration = self._administration
        operations: dict[str, Run] = {
            "consumers": self._consumers,
            "consumer": self._consumer,
            "pause": lambda call: administration.pause(id_of(call.name)),
            "resume": lambda call: administration.resume(id_of(call.name)),
            "dead": self._dead,
            "retry": lambda call: administration.retry(id_of(call.name), **_selection(call)),
            "cancel-retry": lambda call: administration.cancel_retry(id_of(call.name), **_selection(call)),
            "discard": lambda call: administration.discard(id_of(call.name), **_selection(call), waiting=call.waiting),
        }
        try:
            for name, run in operations.items():
                subject = self._connection.subjects.instance(self._bundle_id, self._instance_id, name)
                self._subscriptions.append(await self._connection.subscribe(subject, self._server(name, run)))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Take no more requests; those that run get a moment for their end."""
        while self._subscriptions:
            await self._subscriptions.pop().drain()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    # Operations

    async def _consumers(self, call: ConsumersCall) -> ConsumersPage:
        statuses = await self._administration.list()
        skip, limit = max(0, call.skip), max(1, min(call.limit, _MAX_CONSUMERS))
        found = [_told(status) for status in statuses[skip : skip + limit]]
        fitting = _fitting([_OVERHEAD + len(view.last_error or "") for view in found], self._room)
        return ConsumersPage(found[:fitting], more=skip + fitting < len(statuses))

    async def _consumer(self, call: ConsumerCall) -> ConsumerView:
        return _told(await self._administration.show(id_of(call.name)))

    async def _dead(self, call: DeadEventsCall) -> DeadEventsPage:
        limit = max(1, min(call.limit, _MAX_EVENTS))
        events = await self._administration.dead(
            id_of(call.name),
            position=call.position,
            key=call.key,
            event_name=call.event_name,
            error_type=call.error_type,
            waiting=call.waiting,
            retry=call.retry,
            after=call.after,
            limit=limit,
        )
        views = [dead_event_view(_shortened(event)) for event in events]
        fitting = _fitting([_size(view) for view in views], self._room)
        return DeadEventsPage(views[:fitting], more=fitting < len(events))

    # Requests

    def _server(self, name: str, run: Run) -> Callable[[Delivery], None]:
        def serve(delivery: Delivery) -> None:
            if len(self._tasks) >= MAX_RUNNING:
                error = Overloaded(f"{name} was refused: {len(self._tasks)} requests of operators run already")
                delivery.respond(encode(Answer[None](error_to_data(error))))
                return
            task = asyncio.create_task(self._serve(name, run, delivery))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return serve

    async def _serve(self, name: str, run: Run, delivery: Delivery) -> None:
        try:
            call = ADMINISTRATION[name].decode_call(delivery.data)
            async with asyncio.timeout(MAX_SECONDS):
                data = encode(Answer(None, await run(call)))
            delivery.respond(data)
        except Exception as error:
            logger.info("%s, asked by an operator, was refused: %s", name, error)
            delivery.respond(encode(Answer[None](error_to_data(error))))


def _selection(call: SelectionCall) -> dict[str, Any]:
    return {
        "position": call.position,
        "key": call.key,
        "event_name": call.event_name,
        "error_type": call.error_type,
        "all": call.all,
    }


def _told(status: ConsumerStatus) -> ConsumerView:
    error = status.last_error
    return status_view(status if error is None else replace(status, last_error=_cut(error, _MAX_TEXT)))


def _shortened(event: DeadEvent) -> DeadEvent:
    """Cut what errors may have made long: the end of a traceback says most."""
    if len(event.error_message) <= _MAX_TEXT and len(event.traceback) <= _MAX_TEXT:
        return event
    return replace(
        event, error_message=_cut(event.error_message, _MAX_TEXT), traceback=f"...{event.traceback[-_MAX_TEXT:]}"
    )


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def _size(event: DeadEventView) -> int:
    texts = (event.event_name, event.aggregate_id or "", event.key or "", event.error_message, event.traceback)
    return _OVERHEAD + sum(len(text.encode(errors="replace")) for text in texts)


def _fitting(sizes: Sequence[int], room: int) -> int:
    """Return how many of the first fit into ``room`` bytes: at least one."""
    for number, size in enumerate(sizes):
        room -= size
        if room < 0:
            return max(number, 1)
    return len(sizes)
