"""The engine of a bundle's consumers, at work on the events of one test.

Stores in memory, and for each context of the component one consumer, which are those of a bundle. Left out is what
takes time: nobody waits between two attempts, and what a consumer tries again for ever is tried once. Nor is there
another process that could take a lease over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy.ext.asyncio import AsyncEngine

from evento.components import HandlerCall, HandlerDefinition, HandlerKind, Interceptor
from evento.consumers import Consumer, ConsumerId, ConsumerStateStore, DeadEvent, DeadEventFilter
from evento.consumers.deliveries import delivery_of
from evento.consumers.failures import is_transient
from evento.consumers.head import HeadWatch
from evento.consumers.settings import ConsumerSettings
from evento.consumers.signals import Signals
from evento.consumers.status import Standing
from evento.errors import ReadModelBehind
from evento.messages import EventMessage, EventRecord
from evento.state_store import Append, Appended, StateStore
from evento.state_store.sqlite import SqliteStateStore
from evento.testing.databases import ProgressStore
from evento.testing.events import new_event
from evento.testing.scenario import Subject

__all__ = ["Delivered", "Engine", "engine_of"]

BUNDLE = "test"
"""The bundle that the consumers belong to, part of the ids of what they send: that of ``embedded()`` too."""
STOP_TIMEOUT = 0.2
"""Seconds that a handler which has not ended in time gets to end, before it is cancelled."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of an event.

    ``error`` is that of the last attempt, if that has failed; ``refused`` tells that the handler of a saga had ended
    well then, and what it left was refused. ``state`` is what it has left, kept or refused. ``dead`` is the event in
    the dead event queue: it has failed, or waits behind one that has.
    """

    handled: bool
    error: Exception | None = None
    refused: bool = False
    state: Any = None
    dead: DeadEvent | None = None


class Engine:
    """The consumers of a component, one for each of its contexts."""

    def __init__(self, subject: Subject, store: StateStore, head: HeadWatch, readers: Sequence[Reader]) -> None:
        self._subject = subject
        self._store = store
        self._head = head
        self._readers = readers

    async def deliver(self, event: EventMessage[Any], *, head_reached: bool) -> Delivered:
        """Store an event, and return what became of it.

        :param head_reached: what the handler is told about it.
        """
        outcome = await self._store.append(Append(new_event(event.record)))
        record = cast(Appended, outcome).record  # nothing is expected of it that could be refused
        for reader in self._readers:
            reader.expect(record, head_reached=head_reached)
        self._head.seen(record.position)
        outcomes = [await reader.outcome(record, self._subject.timeout) for reader in self._readers]
        return min(outcomes, key=lambda one: (one.error is None, one.dead is None, not one.handled))


@asynccontextmanager
async def engine_of(subject: Subject, *, read_model: AsyncEngine | None = None) -> AsyncIterator[Engine]:
    """Put a projector, saga or observer to work, with an empty event store.

    :param read_model: the database of handlers that ask for a connection.
    """
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(SqliteStateStore(None))
        progress = await stack.enter_async_context(ProgressStore(read_model))
        head = HeadWatch(store, poll=60.0)  # not entered: the test itself says when the head has moved
        contexts = dict.fromkeys(subject.definition.contexts)
        readers = [Reader(subject, context, store=store, progress=progress, head=head) for context in contexts]
        for reader in readers:
            await stack.enter_async_context(reader.consumer)
        yield Engine(subject, store, head, readers)


class Reader:
    """The consumer of one context, and what it does with the newest event."""

    def __init__(
        self, subject: Subject, context: str, *, store: StateStore, progress: ConsumerStateStore, head: HeadWatch
    ) -> None:
        component = subject.definition
        self._progress = progress
        self._id = ConsumerId(BUNDLE, component.name, component.version, context)
        self._watch = Watch()
        standing = WatchedStanding(self._watch)
        self._watch.standing = standing
        self._delivery = delivery_of(
            self._id,
            component,
            subject.instance,
            standing=standing,
            head=lambda: head.head,
            commands=subject.commands,
            queries=subject.queries,
            interceptors=(self._watch, *subject.interceptors),
            executors=subject.executors,
        )
        self.consumer = Consumer(
            self._id,
            component.role,
            self._delivery,
            owner="test",
            state_store=store,
            consumer_store=progress,
            watch=head,
            standing=standing,
            settings=ConsumerSettings(take_over=True, stop_timeout=STOP_TIMEOUT),
            signals=UntimedSignals(self._watch),
        )

    def expect(self, event: EventRecord, *, head_reached: bool) -> None:
        """Look out for what becomes of an event."""
        known = event.name in self._delivery.names
        self._watch.begin(self._delivery.handler_of(event) if known else None, head_reached=head_reached)

    async def outcome(self, event: EventRecord, timeout: float) -> Delivered:
        """Wait until an event is handled, dead, held back or passed, or until its consumer would only try again."""
        watch, deadline = self._watch, asyncio.get_running_loop().time() + timeout
        passed = asyncio.create_task(self.consumer.wait_committed(event.position, deadline))
        given_up = asyncio.create_task(watch.given_up.wait())
        try:
            await asyncio.wait({passed, given_up}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            given_up.cancel()
            passed.cancel()
            await asyncio.wait({passed, given_up})
        if not watch.given_up.is_set():
            try:
                passed.result()
            except ReadModelBehind:
                return Delivered(True, TimeoutError(f"the handler has not ended after {timeout:g} s"))
        queued = await self._progress.dead_events(self._id, DeadEventFilter(position=event.position))
        dead = queued[0] if queued else None
        if watch.given_up.is_set() or (dead is not None and not dead.waiting):
            state = watch.state if watch.returned else None
            return Delivered(watch.called, watch.error, refused=watch.returned, state=state, dead=dead)
        return Delivered(watch.called, state=watch.state, dead=dead)


class Watch(Interceptor):
    """Sees the handler and its errors; the outermost interceptor."""

    standing: Standing

    def __init__(self) -> None:
        self.begin(None, head_reached=False)

    def begin(self, handler: HandlerDefinition | None, *, head_reached: bool) -> None:
        """Forget the event before."""
        self.called = False
        self.returned = False
        self.state: Any = None
        self.error: Exception | None = None
        self.given_up = asyncio.Event()
        self._retry = 0 if handler is None else handler.retry
        self._failures = 0
        self._head_reached = head_reached

    async def before(self, call: HandlerCall) -> None:
        """Take note that the handler sees the event."""
        self.called = True
        self.returned = False
        (self.standing.head_reached.set if self._head_reached else self.standing.head_reached.clear)()

    async def after(self, call: HandlerCall, result: Any) -> Any:
        """Take note of what the handler leaves."""
        if call.kind is HandlerKind.SAGA_EVENT:
            self.returned = True
            self.state = call.injection.state if result is None else result
        return result

    def failed(self, error: BaseException) -> None:
        """Take note of an error."""
        self.error = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")

    def goes_on(self) -> bool:
        """Whether there is another attempt: not for what would be tried for ever, nor when an assertion has failed."""
        self._failures += 1
        error = self.error
        if error is None or is_transient(error) or isinstance(error, AssertionError) or self._failures > self._retry:
            self.given_up.set()
        return not self.given_up.is_set()


class WatchedStanding(Standing):
    """Where a consumer stands; hands its errors on."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def failed(self, error: BaseException) -> None:
        """Count a failure."""
        super().failed(error)
        self._watch.failed(error)

    def died(self, error: BaseException) -> None:
        """Take note of a dead event."""
        super().died(error)
        self._watch.failed(error)


class UntimedSignals(Signals):
    """Ends the waits between attempts at once; where there is to be no other attempt, stops the consumer."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    async def back_off(self, seconds: float) -> bool:
        """Wait for nothing."""
        return await self.doze(seconds)

    async def doze(self, seconds: float) -> bool:
        """Wait for nothing."""
        if not self._watch.goes_on():
            self.stop()
        await asyncio.sleep(0)  # a consumer that fails and fails lets others in
        return self.stopping
