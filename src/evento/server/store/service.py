"""StoreService: answers ``store.*`` requests from any System State Store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from evento.errors import EventoError, Overloaded, error_to_data
from evento.gateway.nats import Delivery, NatsConnection, Subscription
from evento.gateway.nats.calls import Answer, Operation, encode
from evento.messages import MAX_PAYLOAD_BYTES
from evento.server.store.appending import Appending, admit
from evento.server.store.counters import StoreCounters
from evento.server.store.head import HeadPublisher
from evento.server.store.jobs import Jobs
from evento.state_store import Found, Page, StateStore, Story
from evento.state_store.remote import wire

__all__ = ["StoreService"]

logger = logging.getLogger("evento.server.store")

QUEUE_GROUP = "evento"
_MAX_SECONDS = 300.0
_MAX_FOUND = 1000
_MAX_PAGE = 100_000

Run = Callable[[Any], Awaitable[Any]]


class StoreService:
    """Serves a store to the bundles of a cluster; several servers may serve one database.

    Connection and store must be open, and stay open until the service is closed. Requests beyond the bounds are
    answered with :class:`~evento.errors.Overloaded` at once, and a request whose deadline has passed is
    refused (:class:`~evento.errors.StoreUnavailable`) before it is started.

    :param max_reads: operations other than appends that run or wait at a time, and ``max_bytes`` of them. What is
        appended is bounded by the store.
    :param max_fetches: reads of pages, stories and finds that run at a time, each up to half a message of events in
        memory; others wait among the reads.
    :param payload_limit: the largest payload of an event, in bytes; a larger one is refused with
        :class:`~evento.errors.PayloadError`, alone.
    """

    def __init__(
        self,
        connection: NatsConnection,
        store: StateStore,
        *,
        max_reads: int = 2048,
        max_bytes: int = 128 * 1024 * 1024,
        max_fetches: int = 8,
        payload_limit: int = MAX_PAYLOAD_BYTES,
    ) -> None:
        self._connection = connection
        self._store = store
        self._max_reads = max_reads
        self._max_bytes = max_bytes
        self._bytes = 0
        self._fetches = asyncio.Semaphore(max_fetches)
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscriptions: list[Subscription] = []
        self._room = connection.max_payload // 2  # leaves one event beyond it its place
        self.counters = StoreCounters()
        self._head = HeadPublisher(connection, store.store_id)
        self._appending = Appending(
            store,
            self.counters,
            stored=self._stored,
            max_answer=connection.max_payload,
            payload_limit=payload_limit,
        )
        self._jobs = Jobs(connection)

    async def __aenter__(self) -> StoreService:
        """Start serving."""
        self.counters.head = await self._store.head()
        try:
            await self._subscribe("append", self._appending.serve)
            for name, run in self._operations().items():
                await self._subscribe(name, self._server(name, run))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Take no further request, and answer what is under way; when this is cancelled, reads are cut off."""
        try:
            for subscription in self._subscriptions:
                await subscription.drain()
            await self._appending.drained()
            if self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            while self._subscriptions:
                await self._subscriptions.pop().unsubscribe()
            for task in self._tasks:
                task.cancel()
            await self._jobs.close()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def _operations(self) -> dict[str, Run]:
        store = self._store
        return {
            "story": self._in_turn(self._story),
            "fetch": self._in_turn(self._fetch),
            "identity": self._identity,
            "head": lambda call: store.head(),
            "snapshot": lambda call: store.snapshot(call.snapshot),
            "lookup": lambda call: store.lookup(call.command_id),
            "reject": lambda call: store.reject(call.command_id, call.error),
            "lock": lambda call: store.lock(call.lock_id, owner=call.owner, ttl=call.ttl, request=call.request),
            "renew": lambda call: store.renew(call.lease, ttl=call.ttl),
            "unlock": lambda call: store.unlock(call.lease),
            "search": self._in_turn(self._search),
            "event": lambda call: store.event(call.position),
            "info": lambda call: store.info(),
            "verify": lambda call: self._jobs.start(store.verify),
            "purge": lambda call: self._jobs.start(
                lambda progress: store.purge(
                    deleted_before=call.deleted_before, dry_run=call.dry_run, progress=progress
                )
            ),
        }

    def _in_turn(self, read: Run) -> Run:
        """Let few reads of many events run at a time."""

        async def run(call: Any) -> Any:
            async with self._fetches:
                await self._connection.writable()  # answers that nobody takes yet must not gather here
                return await read(call)

        return run

    async def _fetch(self, call: wire.FetchCall) -> Page:
        page = await self._store.fetch(
            call.after,
            contexts=call.contexts,
            names=call.names,
            limit=min(call.limit, _MAX_PAGE),
            max_bytes=min(call.max_bytes, self._room),
        )
        self.counters.fetched += len(page.events)
        return page

    async def _story(self, call: wire.StoryCall) -> Story:
        return await self._store.story(
            call.aggregate_id,
            boundary=call.boundary,
            fingerprint=call.fingerprint,
            after_version=call.after_version,
            max_bytes=min(call.max_bytes, self._room),
        )

    async def _search(self, call: wire.SearchCall) -> Found:
        return await self._store.search(
            call.criteria,
            after=call.after,
            before=call.before,
            limit=min(call.limit, _MAX_FOUND),
            descending=call.descending,
            max_bytes=min(call.max_bytes, self._room),
        )

    async def _identity(self, call: wire.Call) -> wire.Identity:
        return wire.Identity(self._store.store_id, self._store.epoch, await self._store.head())

    async def _subscribe(self, name: str, serve: Callable[[Delivery], None]) -> None:
        subject = self._connection.subjects.store(name)
        self._subscriptions.append(await self._connection.subscribe(subject, serve, queue=QUEUE_GROUP))

    def _server(self, name: str, run: Run) -> Callable[[Delivery], None]:
        operation = wire.OPERATIONS[name]

        def serve(delivery: Delivery) -> None:
            size = len(delivery.data)
            if len(self._tasks) >= self._max_reads or (self._tasks and self._bytes + size > self._max_bytes):
                self.counters.refused += 1
                error = Overloaded(
                    f"store.{name} was refused: {len(self._tasks)} operations ({self._bytes} bytes) run in this server"
                )
                delivery.respond(encode(Answer[None](error_to_data(error))))
                return
            task = asyncio.create_task(self._serve(name, operation, run, delivery))
            self._tasks.add(task)
            self._bytes += size
            task.add_done_callback(partial(self._served, size))

        return serve

    def _served(self, size: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._bytes -= size

    async def _serve(self, name: str, operation: Operation, run: Run, delivery: Delivery) -> None:
        loop = asyncio.get_running_loop()
        since = loop.time()
        deadline = asyncio.timeout(_MAX_SECONDS)
        try:
            call: wire.Call = operation.decode_call(delivery.data)
            admit(name, call, self._store, self.counters)
            deadline = asyncio.timeout(min(call.remaining, _MAX_SECONDS))
            async with deadline:
                value = await run(call)
                if not self._connection.is_writable:
                    await self._connection.writable()
            delivery.respond(encode(Answer(None, value)))
        except Exception as error:
            if deadline.expired():
                self.counters.expired += 1  # nobody waits for an answer any more
                return
            if not isinstance(error, EventoError):
                logger.exception("store.%s failed", name)
            self.counters.errors[name] += 1
            delivery.respond(encode(Answer[None](error_to_data(error))))
        self.counters.took(name, loop.time() - since)

    def _stored(self, position: int) -> None:
        self.counters.head = max(self.counters.head, position)
        self._head.stored(position)
