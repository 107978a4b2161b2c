"""Tests of projectors and observers: the components whose handlers run one by one, without a state."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from evento.bundle.injector import Injector
from evento.components import Interceptor, Observer, Projector, Role
from evento.testing.consumers import ConsumerTest, EventOutcome
from evento.testing.databases import Database, Setup
from evento.testing.events import AnyEvent
from evento.testing.gateways import Answers
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
    interceptors: Sequence[Interceptor] = (),
    timeout: float = 30.0,
) -> ProjectorTest:
    """Test a projector on your read model, on the consumer that runs it in a bundle.

    ::

        projector_test(OrderProjector, injector={Orders: orders}).given(OrderPlacedEvent("ORD_1", "ann")).when(
            ItemAddedEvent("ORD_1", "tea", 3)
        ).expect(lambda: orders.rows["ORD_1"].total, 3)

    A handler that fails is tried again as often as it allows, but without the delays in between. What a consumer tries
    again for ever, such as a failure to reach something, ends the test at the first attempt, with its error.

    :param projector: the class, or an instance.
    :param injector: resolves the constructor's parameters, as the bundle's does: a callable or a mapping of types.
    :param answers: what the queries that the projector sends are answered with, by their class: a view, an exception or
        a function of the query.
    :param connection: the database of handlers that ask for an ``AsyncConnection`` or ``AsyncSession``: a SQLAlchemy
        URL, or an engine, which stays open. Default: SQLite in memory, a new one for each ``when``.
    :param setup: an async function that makes the tables, given an ``AsyncConnection``; called before the first event.
    :param interceptors: those of the bundle, if they matter.
    :param timeout: seconds that an event may take, with all attempts.
    """
    subject = Subject(
        projector, Role.PROJECTOR, injector=injector, answers=answers, interceptors=interceptors, timeout=timeout
    )
    return ProjectorTest(subject, connection=connection, setup=setup)


def observer_test(
    observer: type[Observer] | Observer,
    *,
    injector: Injector = None,
    answers: Answers | None = None,
    interceptors: Sequence[Interceptor] = (),
    timeout: float = 30.0,
) -> ObserverTest:
    """Test an observer, on the consumer that runs it in a bundle.

    ::

        observer_test(WelcomeObserver).when(OrderPlacedEvent("ORD_1", "ann")).expect_commands(
            MailSendCommand("welcome, ann")
        )

    Events are handled one after another; a bundle handles those of an observer side by side, or in lanes, where later
    events of an aggregate wait behind a dead one; here nothing waits. Failures are those of :func:`projector_test`.

    :param answers: what the commands and queries that the observer sends are answered with, by their class: an event or
        view, an exception, or a function of the command or query. Without one, a command gives None.

    The other parameters are those of :func:`projector_test`.
    """
    return ObserverTest(
        Subject(observer, Role.OBSERVER, injector=injector, answers=answers, interceptors=interceptors, timeout=timeout)
    )


class ProjectorTest(ConsumerTest):
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
        database = Database(self._connection)
        async with database.open() as read_model:
            if self._setup is not None:
                async with read_model.begin() as connection:
                    await self._setup(connection)
            came = await self._handle(event, head_reached=head_reached, read_model=read_model)
        return EventOutcome(self._subject, *came, database=database)


class ObserverTest(ConsumerTest):
    """An observer and the events before; made by :func:`observer_test`. Each step returns a new one."""

    def when(self, event: AnyEvent) -> EventOutcome:
        """Handle the given events and then this one, in an event loop of its own."""
        __tracebackhide__ = True
        return run_to_end(self.when_async(event))

    async def when_async(self, event: AnyEvent) -> EventOutcome:
        """Handle events like :meth:`when`, in the event loop that runs."""
        __tracebackhide__ = True
        return EventOutcome(self._subject, *await self._handle(event))
