"""Tests of aggregates: given events, when a command, then an event or an error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from datetime import datetime
from typing import Any, Generic, TypeVar

from evento.bundle.aggregates import AggregateRuntime
from evento.bundle.boundaries import Boundaries
from evento.bundle.cache import StateCache
from evento.bundle.folding import Folder
from evento.bundle.injector import Injector
from evento.bundle.keys import check_key
from evento.components import Aggregate, AggregateState, HandlerCall, HandlerKind, Interceptor, Role
from evento.errors import PayloadError
from evento.messages import DomainCommand, DomainEvent, EventMessage, EventRecord, seal
from evento.state_store import Append, StateStore, story_parts
from evento.state_store.sqlite import SqliteStateStore
from evento.testing.entrance import Entrance
from evento.testing.events import as_message, new_event
from evento.testing.gateways import Answers
from evento.testing.reports import Report, Words, same, show, show_step
from evento.testing.running import run_to_end
from evento.testing.scenario import Outcome, Subject, Wrong, json_copy

__all__ = ["AggregateOutcome", "AggregateTest", "aggregate_test"]

S = TypeVar("S", bound=AggregateState)
E = TypeVar("E", bound=DomainEvent)
Step = EventMessage[Any] | DomainCommand[Any]


def aggregate_test(
    aggregate: type[Aggregate[S]] | Aggregate[S],
    *,
    injector: Injector = None,
    answers: Answers | None = None,
    interceptors: Sequence[Interceptor] = (),
    timeout: float = 30.0,
) -> AggregateTest[S]:
    """Test an aggregate, alone and in memory, on the code that runs it in a bundle.

    ::

        aggregate_test(OrderAggregate).given(OrderPlacedEvent("ORD_1", "ann")).when(
            OrderCancelCommand("ORD_1")
        ).expect(OrderCancelledEvent("ORD_1"))

    Beside what is expected, these rules always hold, or ``when`` raises AssertionError: a command handler does not
    change the state; its event survives JSON; folding the same events again gives the same state; with snapshots on,
    the state survives JSON.

    :param aggregate: the class, or an instance.
    :param injector: resolves the constructor's parameters, as the bundle's does: a callable or a mapping of types.
    :param answers: what the commands that the aggregate sends are answered with, by their class: an event, an exception
        or a function of the command. Without one, a command gives None.
    :param interceptors: those of the bundle, if they matter.
    :param timeout: seconds that a handler may take.
    """
    return AggregateTest(
        Subject(
            aggregate, Role.AGGREGATE, injector=injector, answers=answers, interceptors=interceptors, timeout=timeout
        )
    )


class AggregateTest(Generic[S]):
    """An aggregate and its history; made by :func:`aggregate_test`. Each step returns a new one."""

    def __init__(self, subject: Subject, steps: Sequence[Step] = ()) -> None:
        self._subject = subject
        self._steps = tuple(steps)

    def given(self, *events: DomainEvent | EventMessage[Any]) -> AggregateTest[S]:
        """Add events to the history of the aggregate that the command is for."""
        messages = [as_message(event) for event in events]
        for message in messages:
            if not isinstance(message.payload, DomainEvent):
                raise TypeError(f"{message.payload!r} is no domain event: the history of an aggregate has no others")
        return AggregateTest(self._subject, (*self._steps, *messages))

    def given_commands(self, *commands: DomainCommand[Any]) -> AggregateTest[S]:
        """Add what these commands come to; each must be accepted. They may be for other aggregates of the class too."""
        for command in commands:
            self._subject.handler_of(HandlerKind.AGGREGATE_COMMAND, command)
        return AggregateTest(self._subject, (*self._steps, *commands))

    def when(
        self,
        command: DomainCommand[E],
        *,
        metadata: Mapping[str, str] | None = None,
        timestamp: datetime | None = None,
    ) -> AggregateOutcome[S, E]:
        """Handle a command, in an event loop of its own.

        :raises AssertionError: one of the rules that always hold is broken.
        :raises HandlerNotFound: the aggregate does not handle the command.
        """
        __tracebackhide__ = True
        return run_to_end(self.when_async(command, metadata=metadata, timestamp=timestamp))

    async def when_async(
        self,
        command: DomainCommand[E],
        *,
        metadata: Mapping[str, str] | None = None,
        timestamp: datetime | None = None,
    ) -> AggregateOutcome[S, E]:
        """Handle a command like :meth:`when`, in the event loop that runs."""
        __tracebackhide__ = True
        subject = self._subject
        subject.handler_of(HandlerKind.AGGREGATE_COMMAND, command)
        subject.recorder.clear()
        given = [show_step(*_shown(step)) for step in self._steps]
        report = Report(subject.definition.name, given, show_step(command, metadata))
        try:
            aggregate_id = _aggregate_id(command)
        except PayloadError as refused:
            return AggregateOutcome(report, subject, refused, message=None, state=None)
        try:
            async with SqliteStateStore(None) as store:
                history = _History(subject, store, aggregate_id)
                for step in self._steps:
                    await history.add(step)
                message, error, state = await history.decide(command, metadata, timestamp)
        except Wrong as wrong:
            raise wrong.failure(report) from wrong.because
        return AggregateOutcome(report, subject, error, message=message, state=state)


class AggregateOutcome(Outcome, Generic[S, E]):
    """What came of a command."""

    def __init__(
        self,
        report: Report,
        subject: Subject,
        error: Exception | None,
        *,
        message: EventMessage[E] | None,
        state: S | None,
    ) -> None:
        super().__init__(report, subject, error)
        self._message = message
        self._state = state

    @property
    def message(self) -> EventMessage[E]:
        """The event with its envelope; AssertionError when there is none."""
        __tracebackhide__ = True
        if self._message is None:
            raise self._report.failure("there is no event", got=self._error, because=self._error)
        return self._message

    @property
    def event(self) -> E:
        """The event; AssertionError when there is none."""
        return self.message.payload

    @property
    def state(self) -> S | None:
        """The state after the event, or the one that the command was rejected on; None before the first event."""
        return self._state

    def expect(self, event: E) -> AggregateOutcome[S, E]:
        """Expect exactly this event."""
        __tracebackhide__ = True
        expected = seal(event)[1]
        self._expect_success(expected)
        if self.event != expected:
            raise self._report.failure("another event was decided", expected=expected, got=self.event)
        return self

    def expect_state(self, state: S) -> AggregateOutcome[S, E]:
        """Expect this state after the event; after an error that was expected, the state before it."""
        __tracebackhide__ = True
        self._expect_success(state)
        if self._state is None:
            raise self._report.failure("there is no state", expected=state, got=Words("no events"))
        if not same(self._state, state):
            raise self._report.failure("the state is another one", expected=state, got=self._state)
        return self

    def expect_deleted(self) -> AggregateOutcome[S, E]:
        """Expect that the aggregate is deleted now."""
        __tracebackhide__ = True
        expected = Words("a deleted aggregate")
        self._expect_success(expected)
        if self._state is None or not self._state.deleted:
            raise self._report.failure("the aggregate is not deleted", expected=expected, got=self._state)
        return self

    def _got(self) -> Any:
        return self.event


class _History:
    """The aggregates of one test, in a store of their own."""

    def __init__(self, subject: Subject, store: StateStore, aggregate_id: str) -> None:
        self._subject = subject
        self._store = store
        self._aggregate_id = aggregate_id
        self._cache = StateCache(size=2**31, expiry=math.inf)
        self._watch = _Watch()
        runtime = AggregateRuntime(
            subject.definition,
            subject.instance,
            store=store,
            commands=subject.commands,
            sender=subject.sender,
            boundaries=Boundaries(),
            cache=self._cache,
            knows=lambda name: True,  # a test gives events by their classes
            tracing=None,
            interceptors=(*subject.interceptors, self._watch),
            executors=subject.executors,
        )
        self._entrance = Entrance(subject, runtime.handle)

    async def add(self, step: Step) -> None:
        """Add a given event, or what a given command comes to."""
        if isinstance(step, EventMessage):
            await self._append(step.record)
            return
        _, error = await self._entrance.send(step)
        self._watch.raise_problem()
        if error is not None:
            raise Wrong(f"the given {show(step)} was not accepted", got=error, because=error)

    async def _append(self, record: EventRecord) -> None:
        if record.aggregate_id not in {None, self._aggregate_id}:
            raise Wrong(
                "a given event belongs to another aggregate than the command",
                Words(f"the aggregate id {self._aggregate_id!r}"),
                Words(f"{record.name} of {record.aggregate_id!r}"),
            )
        new = new_event(record, aggregate_id=self._aggregate_id)
        await self._store.append(Append(new, boundary=self._aggregate_id))

    async def decide(
        self, command: DomainCommand[Any], metadata: Mapping[str, str] | None, timestamp: datetime | None
    ) -> tuple[EventMessage[Any] | None, Exception | None, Any]:
        """Handle the command; return its event, its error and the state then."""
        self._subject.recorder.clear()  # of what the given commands have sent
        message, error = await self._entrance.send(command, metadata, timestamp)
        self._watch.raise_problem()
        try:
            state = await self._folded()
        except Wrong:
            raise
        except Exception as again:
            if error is None:
                raise Wrong("folding the same events again fails", got=again, because=again) from again
            state = None  # folding has failed before: that is the error
        self._check_snapshot(state)
        return message, error, state

    async def _folded(self) -> Any:
        """Return the state, after checking that folding gives the same one whenever it is done."""
        parts = story_parts(self._store, self._aggregate_id)
        records = [record async for part in parts for record in part.events]
        folder = Folder(self._subject.definition, self._subject.instance)
        replayed, again = (folder.replay(None, records) for _ in range(2))
        cached = self._cache.take((self._subject.definition.name, self._aggregate_id))
        live = cached.state if cached is not None and cached.version == len(records) else replayed
        for one, other in ((live, replayed), (replayed, again)):
            if not same(one, other):
                raise Wrong(
                    "folding the same events again gives another state: an event-sourcing handler depends on the "
                    "state and the event alone, not on clocks, random numbers or what its object keeps",
                    one,
                    other,
                )
        return replayed

    def _check_snapshot(self, state: Any) -> None:
        definition = self._subject.definition
        if definition.snapshot_frequency < 0 or state is None:
            return
        problem = "snapshots are on, but the state does not survive JSON: give its fields types that do"
        copy = json_copy(state, definition.state, problem)
        if copy != state:
            raise Wrong(problem, state, copy)


class _Watch(Interceptor):
    """Sees that command handlers leave the state alone, and that their events survive JSON."""

    kinds = frozenset({HandlerKind.AGGREGATE_COMMAND})

    def __init__(self) -> None:
        self._before: Any = None
        self._wrong: Wrong | None = None

    async def before(self, call: HandlerCall) -> None:
        self._before = deepcopy(call.injection.state)

    async def after(self, call: HandlerCall, result: Any) -> Any:
        self._check_state(call)
        if isinstance(result, DomainEvent):
            try:
                seal(result)
            except PayloadError as error:
                problem = f"{call.handler.name} has returned an event that cannot be stored"
                self._wrong = self._wrong or Wrong(
                    problem, Words("an event whose values are of its types"), error, error
                )
        return result

    async def on_exception(self, call: HandlerCall, error: Exception) -> Exception:
        self._check_state(call)
        return error

    def _check_state(self, call: HandlerCall) -> None:
        state = call.injection.state
        if not same(self._before, state):
            problem = (
                f"{call.handler.name} has changed the state: a command handler only decides, the state changes in the "
                "event-sourcing handler of its event"
            )
            self._wrong = Wrong(problem, self._before, deepcopy(state))

    def raise_problem(self) -> None:
        """Raise what was seen."""
        if self._wrong is not None:
            raise self._wrong


def _aggregate_id(command: DomainCommand[Any]) -> str:
    copy = seal(command)[1]
    check_key(type(command).__name__, "aggregate id", copy.aggregate_id)
    return copy.aggregate_id


def _shown(step: Step) -> tuple[Any, Mapping[str, str] | None]:
    return (step.payload, step.metadata) if isinstance(step, EventMessage) else (step, None)
