"""Tests of sagas: given events, when an event, then commands and a state."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar, cast

import msgspec

from evento.bundle.injector import Injector
from evento.components import HandlerDefinition, HandlerKind, HandlerRunner, Role, Saga, SagaState
from evento.consumers.delivery import EventInjection
from evento.consumers.status import Standing
from evento.errors import HandlerError
from evento.gateway import CommandGateway, Handling, QueryGateway
from evento.messages import EventMessage
from evento.testing.consumers import ConsumerTest, EventOutcome, consumer_id, handler_of
from evento.testing.events import AnyEvent
from evento.testing.gateways import Answers
from evento.testing.reports import Report, Words, same
from evento.testing.running import run_to_end
from evento.testing.scenario import Subject, Wrong, json_copy

__all__ = ["SagaOutcome", "SagaTest", "saga_test"]

S = TypeVar("S", bound=SagaState)


def saga_test(
    saga: type[Saga[S]] | Saga[S],
    *,
    injector: Injector = None,
    answers: Answers | None = None,
    timeout: float = 30.0,
) -> SagaTest[S]:
    """Test a saga: the commands that it sends and the state that it keeps.

    ::

        saga_test(PaymentSaga).given(OrderPlacedEvent("ORD_1", "ann")).when(
            PaymentCapturedEvent("ORD_1", 12)
        ).expect_commands(MailSendCommand("paid: ORD_1")).expect_ended()

    The instance is found as in a bundle: the event's association property equals an association of its state. Beside
    what is expected, these rules always hold, or ``when`` raises AssertionError: the state survives JSON; a saga that
    goes on has an association, which no other instance has.

    :param saga: the class, or an instance.
    :param injector: resolves the constructor's parameters, as the bundle's does: a callable or a mapping of types.
    :param answers: what the commands and queries that the saga sends are answered with, by their class: an event or
        view, an exception, or a function of the command or query. Without one, a command gives None.
    :param timeout: seconds that a handler may take.
    """
    return SagaTest(Subject(saga, Role.SAGA, injector=injector, answers=answers, timeout=timeout))


class SagaRun(Generic[S]):
    """The instances of a saga in one test."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._definition = subject.definition
        self._states: list[S] = []
        self.touched: S | None = None
        """The state after the newest event; None when there was no instance for it."""

    async def deliver(self, event: EventMessage[Any], *, head_reached: bool) -> bool:
        """Handle an event; False when no handler sees it, or it finds no instance."""
        self.touched = None
        handler = handler_of(self._definition, HandlerKind.SAGA_EVENT, event)
        if handler is None:
            return False
        stored = self._found(handler, event)
        if stored is None and not handler.init:
            return False
        # The handler gets a copy: what it changes counts only when it returns.
        state = await self._handled(handler, event, None if stored is None else self._copy(stored))
        if stored is not None:
            self._states = [one for one in self._states if one is not stored]
        if state is not None:
            self._keep(state)
        return True

    def _found(self, handler: HandlerDefinition, event: EventMessage[Any]) -> S | None:
        """Return the instance that the event is for."""
        name = cast(str, handler.association_property)
        value = getattr(event.payload, name)
        if value is None:
            return None
        key = msgspec.json.encode(value)
        for state in self._states:
            if name in state.associations and msgspec.json.encode(state.associations[name]) == key:
                return state
        return None

    async def _handled(self, handler: HandlerDefinition, event: EventMessage[Any], state: S | None) -> S | None:
        subject = self._subject
        injection = SagaInjection(commands=subject.commands, queries=subject.queries, message=event, state=state)
        handling = Handling(
            event, handler=f"{consumer_id(self._definition)}.{handler.name}", may_send=True, may_query=True
        )
        runner = HandlerRunner(handler, subject.instance)
        result = await runner.run(event.payload, injection, handling)
        if result is None:
            return state
        if not isinstance(result, cast(type, self._definition.state)):
            raise HandlerError(
                f"{handler.id} ({handler.source}) returned {type(result).__name__}: return the state, or None"
            )
        return cast(S, result)

    def _keep(self, state: S) -> None:
        self.touched = self._copy(state)
        if state.ended:
            return
        if not state.associations:
            raise Wrong(
                "the saga goes on, but no event can find it: call state.set_association(), or state.end()",
                Words("at least one association"),
                state,
            )
        for other in self._states:
            for name, value in state.associations.items():
                if name in other.associations and msgspec.json.encode(other.associations[name]) == msgspec.json.encode(
                    value
                ):
                    raise Wrong(
                        f"two instances of the saga have the association {name}={value!r}: an event can find one only",
                        Words("associations that no other instance has"),
                        [other, state],
                    )
        self._states.append(self.touched)

    def _copy(self, state: S) -> S:
        """Return what is stored of a state."""
        problem = "the state does not survive JSON: give its fields types that do"
        copy = json_copy(state, self._definition.state, problem)
        if not same(copy, state):
            raise Wrong(problem, state, copy)
        return cast(S, copy)


class SagaInjection(EventInjection):
    """What a saga's handler may ask for."""

    __slots__ = ("state",)

    def __init__(
        self, *, commands: CommandGateway, queries: QueryGateway, message: EventMessage[Any], state: SagaState | None
    ) -> None:
        super().__init__(commands=commands, queries=queries, standing=Standing(), head=lambda: 0)
        self.message = message
        self.state = state


class SagaTest(ConsumerTest[SagaRun[S], "SagaOutcome[S]"], Generic[S]):
    """A saga and the events before; made by :func:`saga_test`. Each step returns a new one."""

    def when(self, event: AnyEvent) -> SagaOutcome[S]:
        """Handle the given events and then this one, in an event loop of its own.

        :raises AssertionError: one of the rules that always hold is broken.
        """
        __tracebackhide__ = True
        return run_to_end(self._handle(event))

    async def when_async(self, event: AnyEvent) -> SagaOutcome[S]:
        """Handle events like :meth:`when`, in the event loop that runs."""
        __tracebackhide__ = True
        return await self._handle(event)

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[SagaRun[S]]:
        yield SagaRun(self._subject)

    def _outcome(self, report: Report, error: Exception | None, *, handled: bool, run: SagaRun[S]) -> SagaOutcome[S]:
        return SagaOutcome(report, self._subject, error, handled=handled, state=run.touched)


class SagaOutcome(EventOutcome, Generic[S]):
    """What came of an event for the instance that it found, or began."""

    def __init__(
        self, report: Report, subject: Subject, error: Exception | None, *, handled: bool, state: S | None
    ) -> None:
        super().__init__(report, subject, error, handled=handled)
        self._state = state

    @property
    def state(self) -> S | None:
        """The state after the event, also of a saga that has ended; None when there is no instance for the event."""
        return self._state

    def expect_state(self, state: S) -> SagaOutcome[S]:
        """Expect that the saga has this state after the event; its associations and ``ended`` count."""
        __tracebackhide__ = True
        self._expect_success(state)
        if self._state is None:
            raise self._report.failure("there is no saga for the event", expected=state, got=self._got())
        if not same(self._state, state):
            raise self._report.failure("the state is another one", expected=state, got=self._state)
        return self

    def expect_ended(self) -> SagaOutcome[S]:
        """Expect that the event has ended the saga."""
        __tracebackhide__ = True
        self._expect_success(Words("a saga that has ended"))
        if self._state is None or not self._state.ended:
            got = self._got() if self._state is None else self._state
            raise self._report.failure("the saga has not ended", expected=Words("a saga that has ended"), got=got)
        return self

    def expect_no_saga(self) -> SagaOutcome[S]:
        """Expect that the event finds no instance and begins none."""
        __tracebackhide__ = True
        self._expect_success(Words("no saga for the event"))
        if self._state is not None:
            raise self._report.failure(
                "there is a saga for the event", expected=Words("no saga for the event"), got=self._state
            )
        return self

    def _got(self) -> Any:
        if self._error is not None:
            return self._error
        return Words("no error" if self._handled else "an ignored event: it finds no saga, or no handler sees it")
