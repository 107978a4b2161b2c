"""What tests of projectors, observers and sagas have in common: events before, an event, and what came of it."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from copy import copy
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from evento.components import ComponentDefinition, HandlerDefinition, HandlerKind
from evento.consumers import ConsumerId
from evento.messages import EventMessage
from evento.testing.databases import Database
from evento.testing.events import AnyEvent, Stream, as_message
from evento.testing.reports import Report, Words, same, show, show_step
from evento.testing.running import run_to_end
from evento.testing.scenario import Outcome, Subject, Wrong

__all__ = ["Check", "ConsumerTest", "EventOutcome", "EventRun", "consumer_id", "handler_of"]

O = TypeVar("O", bound="EventOutcome")  # noqa: E741
R = TypeVar("R", bound="EventRun")
Check: TypeAlias = Callable[[], Any] | Callable[[AsyncConnection], Any] | Awaitable[Any]
"""Looks at a read model: a plain or async function, which gets a connection to the test's database if it takes a
parameter; or something to await."""
_NOT_GIVEN: Any = object()


class EventRun(Protocol):
    """A component at work on the events of one test."""

    async def deliver(self, event: EventMessage[Any], *, head_reached: bool) -> bool:
        """Handle an event; False when the component ignores it."""
        ...


class ConsumerTest(Generic[R, O]):
    """A component that handles events, and the events before; each step returns a new one."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._given: tuple[EventMessage[Any], ...] = ()

    def given(self, *events: AnyEvent) -> Self:
        """Add events that are handled before, without an error; what is sent meanwhile is not recorded."""
        test = copy(self)
        test._given = (*self._given, *map(as_message, events))
        return test

    def _running(self) -> AbstractAsyncContextManager[R]:
        """Put the component to work."""
        raise NotImplementedError

    def _outcome(self, report: Report, error: Exception | None, *, handled: bool, run: R) -> O:
        """Return what came of the event."""
        raise NotImplementedError

    async def _handle(self, event: AnyEvent, *, head_reached: bool = True) -> O:
        __tracebackhide__ = True
        stream = Stream()
        given, message = [stream.place(one) for one in self._given], stream.place(event)
        lines = [show_step(one.payload, one.metadata) for one in given]
        report = Report(self._subject.definition.name, lines, show_step(message.payload, message.metadata))
        try:
            async with self._running() as run:
                for one in given:
                    _, error = await self._delivered(run, one, head_reached=False)
                    if error is not None:
                        raise Wrong(f"the given {show(one.payload)} was not handled", got=error, because=error)
                self._subject.recorder.clear()
                handled, error = await self._delivered(run, message, head_reached=head_reached)
        except Wrong as wrong:
            raise wrong.failure(report) from wrong.because
        return self._outcome(report, error, handled=handled, run=run)

    async def _delivered(
        self, run: R, message: EventMessage[Any], *, head_reached: bool
    ) -> tuple[bool, Exception | None]:
        timer = asyncio.timeout(self._subject.timeout)
        try:
            async with timer:
                return await run.deliver(message, head_reached=head_reached), None
        except Wrong:
            raise
        except TimeoutError as error:
            if timer.expired():
                return True, TimeoutError(f"the handler has not ended after {self._subject.timeout:g} s")
            return True, error
        except Exception as error:
            return True, error


class EventOutcome(Outcome):
    """What came of an event.

    :param database: what checks that ask for a connection get one to.
    """

    def __init__(
        self,
        report: Report,
        subject: Subject,
        error: Exception | None,
        *,
        handled: bool,
        database: Database | None = None,
    ) -> None:
        super().__init__(report, subject, error)
        self._handled = handled
        self._database = database

    def expect(self, check: Check | None = None, equals: Any = _NOT_GIVEN) -> Self:
        """Expect that the event was handled without an error, and that a look at the read model shows what it should.

        ::

            .expect(lambda: orders.rows["ORD_1"].total, 3)

        ``check`` may assert by itself; it fails too when it returns something false (None is fine). With ``equals``
        what it returns is compared. It runs in an event loop of its own.
        """
        __tracebackhide__ = True
        return run_to_end(self.expect_async(check, equals))

    async def expect_async(self, check: Check | None = None, equals: Any = _NOT_GIVEN) -> Self:
        """Expect like :meth:`expect`, in the event loop that runs."""
        __tracebackhide__ = True
        self._expect_success(Words("no error"))
        if check is None:
            return self
        try:
            got = await self._look(check)
        except AssertionError as error:
            error.add_note(str(self._report.failure("the check failed")))
            raise
        if equals is _NOT_GIVEN:
            if got is not None and not got:
                raise self._report.failure("the check failed", expected=Words("something true"), got=got)
        elif not (got == equals or same(got, equals)):
            raise self._report.failure("the check found something else", expected=equals, got=got)
        return self

    def expect_ignored(self) -> Self:
        """Expect that no handler saw the event: there is none for it, or its context is not among the component's."""
        __tracebackhide__ = True
        if self._handled:
            raise self._report.failure(
                "the event was handled", expected=Words("an ignored event"), got=self._got(), because=self._error
            )
        return self

    async def _look(self, check: Check) -> Any:
        if not callable(check):
            return await check
        async with AsyncExitStack() as stack:
            arguments: list[Any] = []
            if _takes_one(check):
                if self._database is None:
                    raise TypeError("this test has no database: give expect() a function without parameters")
                engine = await stack.enter_async_context(self._database.open())
                arguments.append(await stack.enter_async_context(engine.begin()))
            got = check(*arguments)
            return await got if inspect.isawaitable(got) else got

    def _got(self) -> Any:
        if self._error is not None:
            return self._error
        return Words("no error" if self._handled else "an ignored event: no handler saw it")


def consumer_id(component: ComponentDefinition) -> ConsumerId:
    """Return the id under which the component reads, part of the ids of what it sends."""
    return ConsumerId("test", component.name, component.version, component.contexts[0])


def handler_of(component: ComponentDefinition, kind: HandlerKind, event: EventMessage[Any]) -> HandlerDefinition | None:
    """Return the handler that sees an event; None when there is none, or the component does not read its context."""
    if not any(_matches(context, event.context) for context in component.contexts):
        return None
    return component.handler_for(kind, event.name)


def _matches(pattern: str, context: str) -> bool:
    """Whether a context fits a pattern, in which only the star is a wildcard."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), context, re.DOTALL) is not None


def _takes_one(check: Callable[..., Any]) -> bool:
    parameters = inspect.signature(check).parameters.values()
    return any(
        one.default is one.empty and one.kind in {one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD} for one in parameters
    )
