"""Tests of projectors and observers: the components whose handlers run one by one, without a state."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from evento.bundle.injector import Injector
from evento.components import HandlerKind, Observer, Projector, Role
from evento.consumers.delivery import ProjectorDelivery
from evento.consumers.status import Standing
from evento.messages import EventMessage
from evento.testing.consumers import ConsumerTest, EventOutcome, consumer_id, handler_of
from evento.testing.databases import Database, EventTransaction, Setup
from evento.testing.events import AnyEvent
from evento.testing.gateways import Answers
from evento.testing.reports import Report
from evento.testing.running import run_to_end
from evento.testing.scenario import Subject

__all__ = ["ObserverTest", "ProjectorTest", "observer_test", "projector_test"]


def projector_test(
    projector: type[Projector] | Projector,
    *,
    injector: Injector = None,
    answers: Answers | None = None,
    connection: str | URL | AsyncEngine | None = None,
    setup: Setup | None = None,
    timeout: float = 30.0,
) -> ProjectorTest:
    """Test a projector on your read model.

    ::

        projector_test(OrderProjector, injector={Orders: orders}).given(OrderPlacedEvent("ORD_1", "ann")).when(
            ItemAddedEvent("ORD_1", "tea", 3)
        ).expect(lambda: orders.rows["ORD_1"].total, 3)

    :param projector: the class, or an instance.
    :param injector: resolves the constructor's parameters, as the bundle's does: a callable or a mapping of types.
    :param answers: what the queries that the projector sends are answered with, by their class: a view, an exception or
        a function of the query.
    :param connection: the database of handlers that ask for an ``AsyncConnection`` or ``AsyncSession``: a SQLAlchemy
        URL, or an engine, which stays open. Default: SQLite in memory, a new one for each ``when``.
    :param setup: an async function that makes the tables, given an ``AsyncConnection``; called before the first event.
    :param timeout: seconds that a handler may take.
    """
    subject = Subject(projector, Role.PROJECTOR, injector=injector, answers=answers, timeout=timeout)
    return ProjectorTest(subject, connection=connection, setup=setup)


def observer_test(
    observer: type[Observer] | Observer,
    *,
    injector: Injector = None,
    answers: Answers | None = None,
    timeout: float = 30.0,
) -> ObserverTest:
    """Test an observer.

    ::

        observer_test(WelcomeObserver).when(OrderPlacedEvent("ORD_1", "ann")).expect_commands(
            MailSendCommand("welcome, ann")
        )

    :param answers: what the commands and queries that the observer sends are answered with, by their class: an event or
        view, an exception, or a function of the command or query. Without one, a command gives None.

    The other parameters are those of :func:`projector_test`.
    """
    return ObserverTest(Subject(observer, Role.OBSERVER, injector=injector, answers=answers, timeout=timeout))


class HandlerRun:
    """Delivers the events of one test, each in a transaction of its own."""

    def __init__(self, subject: Subject, database: Database, engine: AsyncEngine) -> None:
        self.database = database
        self._engine = engine
        self._definition = subject.definition
        self._standing = Standing()
        self._delivery = ProjectorDelivery(
            consumer_id(subject.definition),
            subject.definition,
            subject.instance,
            standing=self._standing,
            head=lambda: 0,
            commands=subject.commands,
            queries=subject.queries,
            executors=subject.executors,
        )

    async def deliver(self, event: EventMessage[Any], *, head_reached: bool) -> bool:
        """Handle an event; False when no handler sees it."""
        if handler_of(self._definition, HandlerKind.EVENT, event) is None:
            return False
        if head_reached:
            self._standing.head_reached.set()
        async with EventTransaction(self._engine) as transactions:
            await self._delivery.deliver(event.record, transactions, 1)
        return True


class _HandlerTest(ConsumerTest[HandlerRun, EventOutcome]):
    _connection: str | URL | AsyncEngine | None = None
    _setup: Setup | None = None

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[HandlerRun]:
        database = Database(self._connection)
        async with database.open() as engine:
            if self._setup is not None:
                async with engine.begin() as connection:
                    await self._setup(connection)
            yield HandlerRun(self._subject, database, engine)

    def _outcome(self, report: Report, error: Exception | None, *, handled: bool, run: HandlerRun) -> EventOutcome:
        database = run.database if self._subject.definition.role is Role.PROJECTOR else None
        return EventOutcome(report, self._subject, error, handled=handled, database=database)


class ProjectorTest(_HandlerTest):
    """A projector and the events before; made by :func:`projector_test`. Each step returns a new one."""

    def __init__(
        self, subject: Subject, *, connection: str | URL | AsyncEngine | None = None, setup: Setup | None = None
    ) -> None:
        super().__init__(subject)
        self._connection = connection
        self._setup = setup

    def when(self, event: AnyEvent, *, head_reached: bool = True) -> EventOutcome:
        """Handle the given events and then this one, in an event loop of its own.

        :param head_reached: what an injected ``ProjectorStatus`` says; False for the given events.
        """
        __tracebackhide__ = True
        return run_to_end(self.when_async(event, head_reached=head_reached))

    async def when_async(self, event: AnyEvent, *, head_reached: bool = True) -> EventOutcome:
        """Handle events like :meth:`when`, in the event loop that runs."""
        __tracebackhide__ = True
        return await self._handle(event, head_reached=head_reached)


class ObserverTest(_HandlerTest):
    """An observer and the events before; made by :func:`observer_test`. Each step returns a new one."""

    def when(self, event: AnyEvent) -> EventOutcome:
        """Handle the given events and then this one, in an event loop of its own."""
        __tracebackhide__ = True
        return run_to_end(self._handle(event))

    async def when_async(self, event: AnyEvent) -> EventOutcome:
        """Handle events like :meth:`when`, in the event loop that runs."""
        __tracebackhide__ = True
        return await self._handle(event)
