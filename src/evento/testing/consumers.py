"""What tests of projectors, observers and sagas have in common: events before, an event, and what came of it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from copy import copy
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from evento.consumers import DeadEvent
from evento.errors import EventoError
from evento.messages import EventMessage
from evento.testing.databases import Database
from evento.testing.engine import Delivered, engine_of
from evento.testing.events import AnyEvent, as_message
from evento.testing.reports import Report, Words, same, show, show_step
from evento.testing.running import run_to_end
from evento.testing.scenario import Outcome, Subject, Wrong

__all__ = ["Check", "ConsumerTest", "EventOutcome"]

Check: TypeAlias = Callable[[], Any] | Callable[[AsyncConnection], Any] | Awaitable[Any]
"""Looks at a read model: a plain or async function, which gets a connection to the test's database if it takes a
parameter; or something to await."""
_NOT_GIVEN: Any = object()


class ConsumerTest:
    """A component that handles events, and the events before; each step returns a new one."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._given: tuple[_Given, ...] = ()

    def given(self, *events: AnyEvent) -> Self:
        """Add events that are handled before, without an error; what is sent meanwhile is not recorded."""
        return self._with(events, dead=False)

    def given_dead(self, *events: AnyEvent) -> Self:
        """Add events that are in the dead event queue then: they fail as often as their handlers allow, or wait.

        Later events of their key wait behind them, see :meth:`EventOutcome.expect_waiting`.
        """
        return self._with(events, dead=True)

    def _with(self, events: Sequence[AnyEvent], *, dead: bool) -> Self:
        test = copy(self)
        test._given = (*self._given, *(_Given(as_message(event), dead) for event in events))
        return test

    async def _handle(
        self, event: AnyEvent, *, head_reached: bool = True, read_model: AsyncEngine | None = None
    ) -> tuple[Report, Delivered]:
        """Handle the given events and then this one; return what came of it."""
        __tracebackhide__ = True
        message = as_message(event)
        report = Report(
            self._subject.definition.name,
            [str(given) for given in self._given],
            show_step(message.payload, message.metadata),
        )
        self._subject.recorder.clear()
        try:
            async with engine_of(self._subject, read_model=read_model) as engine:
                for given in self._given:
                    given.check(await engine.deliver(given.message, head_reached=False))
                self._subject.recorder.clear()
                delivered = await engine.deliver(message, head_reached=head_reached)
                _check_kept(delivered)
        except Wrong as wrong:
            raise wrong.failure(report) from wrong.because
        return report, delivered


@dataclass(frozen=True, slots=True)
class _Given:
    """An event before the one in question, and whether it is to be dead."""

    message: EventMessage[Any]
    dead: bool

    def __str__(self) -> str:
        step = show_step(self.message.payload, self.message.metadata)
        return f"{step}, which is dead" if self.dead else step

    def check(self, delivered: Delivered) -> None:
        """Raise :class:`Wrong` unless the event has become what it was to become."""
        name, error, dead = show(self.message.payload), delivered.error, delivered.dead
        if self.dead:
            if dead is None:
                expected = Words("an event that fails for good, or waits behind one that has")
                raise Wrong(f"the given {name} is not dead", expected, error or Words("no error"), error)
            return
        _check_kept(delivered)
        if error is not None:
            raise Wrong(f"the given {name} was not handled", got=error, because=error)
        if dead is not None:
            raise Wrong(f"the given {name} was not handled", got=_waiting(dead))


def _check_kept(delivered: Delivered) -> None:
    """Raise :class:`Wrong` when the handler has ended well, but the state that it left was refused."""
    if delivered.refused and isinstance(delivered.error, EventoError):
        raise Wrong(
            f"the state is refused: {delivered.error.message}",
            Words("a state that can be kept and found"),
            delivered.state,
            delivered.error,
        )


def _waiting(event: DeadEvent) -> Words:
    return Words(f"an event that waits behind a dead one of {event.key}")


class EventOutcome(Outcome):
    """What came of an event.

    :param database: what checks that ask for a connection get one to.
    """

    _IGNORED = "an ignored event: no handler saw it"

    def __init__(
        self, subject: Subject, report: Report, delivered: Delivered, *, database: Database | None = None
    ) -> None:
        super().__init__(report, subject, delivered.error)
        self._delivered = delivered
        self._database = database

    @property
    def dead_event(self) -> DeadEvent | None:
        """The event in the dead event queue, where it is once it has failed for good, or waits behind another.

        None: it was handled or ignored; or it failed for a reason that a consumer waits out.
        """
        return self._delivered.dead

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
        if self._delivered.handled or self._error is not None or self._is_waiting:
            problem = "the event waits" if self._is_waiting else "the event was handled"
            raise self._report.failure(
                problem, expected=Words("an ignored event"), got=self._got(), because=self._error
            )
        return self

    def expect_waiting(self) -> Self:
        """Expect that no handler saw the event, because it waits behind a dead one of its key."""
        __tracebackhide__ = True
        if not self._is_waiting:
            expected = Words("an event that waits behind a dead one")
            raise self._report.failure(
                "the event does not wait", expected=expected, got=self._got(), because=self._error
            )
        return self

    @property
    def _is_waiting(self) -> bool:
        return self._delivered.dead is not None and self._delivered.dead.waiting

    def _expect_success(self, expected: Any) -> None:
        __tracebackhide__ = True
        super()._expect_success(expected)
        if self._is_waiting:
            raise self._report.failure("the event was not handled", expected=expected, got=self._got())

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
        if self._delivered.dead is not None:
            return _waiting(self._delivered.dead)
        return Words("no error" if self._delivered.handled else self._IGNORED)


def _takes_one(check: Callable[..., Any]) -> bool:
    parameters = inspect.signature(check).parameters.values()
    return any(
        one.default is one.empty and one.kind in {one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD} for one in parameters
    )
