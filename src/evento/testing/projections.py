"""Tests of projections: when a query, then a view or an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

from evento.bundle.injector import Injector
from evento.bundle.projections import ProjectionRuntime
from evento.components import ComponentDefinition, HandlerKind, Interceptor, Projection, Role
from evento.messages import Query, seal_result, unseal_result
from evento.testing.entrance import Entrance
from evento.testing.gateways import Answers
from evento.testing.reports import Report, show_step
from evento.testing.running import run_to_end
from evento.testing.scenario import Outcome, Subject

__all__ = ["ProjectionOutcome", "ProjectionTest", "projection_test"]

R = TypeVar("R")


def projection_test(
    projection: type[Projection] | Projection,
    *,
    injector: Injector = None,
    answers: Answers | None = None,
    interceptors: Sequence[Interceptor] = (),
    timeout: float = 30.0,
) -> ProjectionTest:
    """Test a projection on a read model that you fill.

    ::

        orders.rows["ORD_1"] = OrderView("ORD_1", "ann")
        projection_test(OrderProjection, injector={Orders: orders}).when(OrderFindQuery("ORD_1")).expect(
            OrderView("ORD_1", "ann")
        )

    ``answers`` are for the queries that the projection itself sends. The parameters are those of
    :func:`~evento.testing.aggregate_test`.
    """
    return ProjectionTest(
        Subject(
            projection, Role.PROJECTION, injector=injector, answers=answers, interceptors=interceptors, timeout=timeout
        )
    )


class ProjectionTest:
    """A projection; made by :func:`projection_test`."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def when(
        self, query: Query[R], *, metadata: Mapping[str, str] | None = None, timestamp: datetime | None = None
    ) -> ProjectionOutcome[R]:
        """Answer a query, in an event loop of its own.

        :raises HandlerNotFound: the projection does not handle the query.
        """
        __tracebackhide__ = True
        return run_to_end(self.when_async(query, metadata=metadata, timestamp=timestamp))

    async def when_async(
        self, query: Query[R], *, metadata: Mapping[str, str] | None = None, timestamp: datetime | None = None
    ) -> ProjectionOutcome[R]:
        """Answer a query like :meth:`when`, in the event loop that runs."""
        __tracebackhide__ = True
        subject = self._subject
        subject.handler_of(HandlerKind.QUERY, query)
        subject.recorder.clear()
        runtime = ProjectionRuntime(
            subject.definition,
            subject.instance,
            queries=subject.queries,
            wait_for=_no_wait,
            tracing=None,
            interceptors=subject.interceptors,
            executors=subject.executors,
        )
        view, error = await Entrance(subject, runtime.handle).query(query, metadata, timestamp)
        report = Report(subject.definition.name, None, show_step(query, metadata))
        return ProjectionOutcome(report, subject, error, query=query, view=view)


class ProjectionOutcome(Outcome, Generic[R]):
    """What came of a query."""

    def __init__(self, report: Report, subject: Subject, error: Exception | None, *, query: Query[R], view: R) -> None:
        super().__init__(report, subject, error)
        self._query = query
        self._view = view

    @property
    def view(self) -> R:
        """The answer, as it arrives at the sender; AssertionError when there is none."""
        __tracebackhide__ = True
        if self._error is not None:
            raise self._report.failure("there is no answer", got=self._error, because=self._error)
        return self._view

    def expect(self, view: R) -> ProjectionOutcome[R]:
        """Expect exactly this answer."""
        __tracebackhide__ = True
        query = type(self._query)
        expected = unseal_result(query, seal_result(query, view))
        self._expect_success(expected)
        if self._view != expected:
            raise self._report.failure("the answer is another one", expected=expected, got=self._view)
        return self

    def _got(self) -> Any:
        return self._view


async def _no_wait(projection: ComponentDefinition, position: int, deadline: float) -> None:
    """A read model in a test is as new as it gets."""
