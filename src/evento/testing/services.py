"""Tests of services: when a command, then an event, None or an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

from evento.bundle.boundaries import Boundaries
from evento.bundle.injector import Injector
from evento.bundle.services import ServiceRuntime
from evento.bundle.tasks import Tasks
from evento.components import HandlerKind, Interceptor, Role, Service
from evento.messages import Event, EventMessage, ServiceCommand, seal
from evento.state_store.sqlite import SqliteStateStore
from evento.testing.entrance import Entrance
from evento.testing.gateways import Answers
from evento.testing.reports import Report, show_step
from evento.testing.running import run_to_end
from evento.testing.scenario import Outcome, Subject

__all__ = ["ServiceOutcome", "ServiceTest", "service_test"]

R = TypeVar("R")


def service_test(
    service: type[Service] | Service,
    *,
    injector: Injector = None,
    answers: Answers | None = None,
    interceptors: Sequence[Interceptor] = (),
    timeout: float = 30.0,
) -> ServiceTest:
    """Test a service, alone and in memory, on the code that runs it in a bundle.

    ::

        service_test(PaymentService, injector={Bank: bank}).when(PaymentCaptureCommand("ORD_1", 12)).expect(
            PaymentCapturedEvent("ORD_1", 12)
        )

    A command with a ``lock_id`` runs under its lock, so that a ``FencingToken`` can be injected (the first is 1). The
    parameters are those of :func:`~evento.testing.aggregate_test`.
    """
    return ServiceTest(
        Subject(service, Role.SERVICE, injector=injector, answers=answers, interceptors=interceptors, timeout=timeout)
    )


class ServiceTest:
    """A service; made by :func:`service_test`."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def when(
        self,
        command: ServiceCommand[R],
        *,
        metadata: Mapping[str, str] | None = None,
        timestamp: datetime | None = None,
    ) -> ServiceOutcome[R]:
        """Handle a command, in an event loop of its own.

        :raises HandlerNotFound: the service does not handle the command.
        """
        __tracebackhide__ = True
        return run_to_end(self.when_async(command, metadata=metadata, timestamp=timestamp))

    async def when_async(
        self,
        command: ServiceCommand[R],
        *,
        metadata: Mapping[str, str] | None = None,
        timestamp: datetime | None = None,
    ) -> ServiceOutcome[R]:
        """Handle a command like :meth:`when`, in the event loop that runs."""
        __tracebackhide__ = True
        subject = self._subject
        subject.handler_of(HandlerKind.COMMAND, command)
        subject.recorder.clear()
        tasks = Tasks()
        async with SqliteStateStore(None) as store:
            runtime = ServiceRuntime(
                subject.definition,
                subject.instance,
                owner="test",
                store=store,
                commands=subject.commands,
                sender=subject.sender,
                boundaries=Boundaries(),
                tasks=tasks,
                tracing=None,
                interceptors=subject.interceptors,
                executors=subject.executors,
            )
            message, error = await Entrance(subject, runtime.handle).send(command, metadata, timestamp)
            await tasks.close(subject.timeout)
        report = Report(subject.definition.name, None, show_step(command, metadata))
        return ServiceOutcome(report, subject, error, message=message)


class ServiceOutcome(Outcome, Generic[R]):
    """What came of a command."""

    def __init__(
        self, report: Report, subject: Subject, error: Exception | None, *, message: EventMessage[Any] | None
    ) -> None:
        super().__init__(report, subject, error)
        self._message = message

    @property
    def message(self) -> EventMessage[Any] | None:
        """The event with its envelope; None when the command gave none."""
        return self._message

    def expect(self, event: R) -> ServiceOutcome[R]:
        """Expect exactly this event; None: no event."""
        __tracebackhide__ = True
        expected = seal(event)[1] if isinstance(event, Event) else None
        self._expect_success(expected)
        if self._got() != expected:
            raise self._report.failure("another event was published", expected=expected, got=self._got())
        return self

    def _got(self) -> Any:
        return None if self._message is None else self._message.payload
