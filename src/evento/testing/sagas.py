"""Tests of sagas: given events, when an event, then commands and a state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from evento.bundle.injector import Injector
from evento.components import Interceptor, Role, Saga, SagaState
from evento.testing.consumers import ConsumerTest, EventOutcome
from evento.testing.engine import Delivered
from evento.testing.events import AnyEvent
from evento.testing.gateways import Answers
from evento.testing.reports import Report, Words, same
from evento.testing.running import run_to_end
from evento.testing.scenario import Subject, json_copy

__all__ = ["SagaOutcome", "SagaTest", "saga_test"]

S = TypeVar("S", bound=SagaState)


def saga_test(
    saga: type[Saga[S]] | Saga[S],
    *,
    injector: Injector = None,
    answers: Answers | None = None,
    interceptors: Sequence[Interceptor] = (),
    timeout: float = 30.0,
) -> SagaTest[S]:
    """Test a saga, on the consumer that runs it in a bundle: the commands that it sends and the state that it keeps.

    ::

        saga_test(PaymentSaga).given(OrderPlacedEvent("ORD_1", "ann")).when(
            PaymentCapturedEvent("ORD_1", 12)
        ).expect_commands(MailSendCommand("paid: ORD_1")).expect_ended()

    The instance is found as in a bundle: the event's association property equals an association of its state. Beside
    what is expected, one rule always holds, or ``when`` raises AssertionError: what a handler leaves can be kept. It is
    a state whose values survive JSON, and, unless the saga has ended, has an association, which no other instance has.

    A handler that fails is tried again as often as it allows, but without the delays in between. What a consumer tries
    again for ever, such as a failure to reach something, ends the test at the first attempt, with its error.

    :param saga: the class, or an instance.
    :param injector: resolves the constructor's parameters, as the bundle's does: a callable or a mapping of types.
    :param answers: what the commands and queries that the saga sends are answered with, by their class: an event or
        view, an exception, or a function of the command or query. Without one, a command gives None.
    :param interceptors: those of the bundle, if they matter.
    :param timeout: seconds that an event may take, with all attempts.
    """
    return SagaTest(
        Subject(saga, Role.SAGA, injector=injector, answers=answers, interceptors=interceptors, timeout=timeout)
    )


class SagaTest(ConsumerTest, Generic[S]):
    """A saga and the events before; made by :func:`saga_test`. Each step returns a new one."""

    def when(self, event: AnyEvent) -> SagaOutcome[S]:
        """Handle the given events and then this one, in an event loop of its own.

        :raises AssertionError: what a handler left cannot be kept, or a given event was not handled.
        """
        __tracebackhide__ = True
        return run_to_end(self.when_async(event))

    async def when_async(self, event: AnyEvent) -> SagaOutcome[S]:
        """Handle events like :meth:`when`, in the event loop that runs."""
        __tracebackhide__ = True
        return SagaOutcome(self._subject, *await self._handle(event))


class SagaOutcome(EventOutcome, Generic[S]):
    """What came of an event for the instance that it found, or began."""

    _IGNORED = "an ignored event: it finds no saga, or no handler sees it"

    def __init__(self, subject: Subject, report: Report, delivered: Delivered) -> None:
        super().__init__(subject, report, delivered)
        state: S | None = delivered.state
        if state is not None and not state.ended:  # as it is kept, and as the next handler sees it
            state = json_copy(state, subject.definition.state, "the state cannot be kept")
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
