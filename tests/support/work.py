"""Work whose handlers do what a test tells them, and a look inside of the bundle that runs it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from waiting import eventually

from evento import (
    Aggregate,
    AggregateId,
    AggregateState,
    CommandGateway,
    DomainCommand,
    DomainEvent,
    EventoBundle,
    Projection,
    Query,
    QueryGateway,
    Service,
    ServiceCommand,
    View,
    aggregate_command_handler,
    command_handler,
    event_sourcing_handler,
    query_handler,
)
from evento.bundle.running import RunningBundle


class WorkDoneEvent(DomainEvent):
    work_id: str
    number: int = 0


class WorkStartCommand(DomainCommand[WorkDoneEvent]):
    work_id: AggregateId


class WorkCommand(DomainCommand[WorkDoneEvent]):
    work_id: AggregateId
    number: int = 0


class WorkInThreadCommand(DomainCommand[WorkDoneEvent]):
    work_id: AggregateId
    number: int = 0


class DelegateCommand(ServiceCommand[None]):
    """Its handler sends another command."""

    work_id: str
    number: int = 0


class WorkView(View):
    work_id: str


class WorkFindQuery(Query[WorkView]):
    work_id: str


class WorkLookQuery(Query[WorkView]):
    """Its handler sends another query."""

    work_id: str


class WorkState(AggregateState):
    numbers: list[int] = []


class Script:
    """What the handlers do, and the numbers of those that have begun."""

    def __init__(self) -> None:
        self.work: Callable[[int], Awaitable[None]] = self.nothing
        self.begun: list[int] = []
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.thread = threading.Event()

    async def nothing(self, number: int) -> None:
        """Return at once."""

    async def wait(self, number: int) -> None:
        """Let every handler wait until it is released or cancelled."""
        self.entered.set()
        await self.release.wait()


class WorkAggregate(Aggregate[WorkState]):
    def __init__(self, script: Script) -> None:
        self._script = script

    @aggregate_command_handler(init=True)
    def start(self, command: WorkStartCommand) -> WorkDoneEvent:
        return WorkDoneEvent(command.work_id)

    @aggregate_command_handler
    async def work(self, command: WorkCommand, state: WorkState) -> WorkDoneEvent:
        self._script.begun.append(command.number)
        await self._script.work(command.number)
        return WorkDoneEvent(command.work_id, command.number)

    @aggregate_command_handler(executor="threads")
    def work_in_thread(self, command: WorkInThreadCommand, state: WorkState) -> WorkDoneEvent:
        self._script.begun.append(command.number)
        self._script.thread.wait(20)
        return WorkDoneEvent(command.work_id, command.number)

    @event_sourcing_handler
    def on_done(self, event: WorkDoneEvent, state: WorkState | None) -> WorkState:
        return WorkState(numbers=[*(state.numbers if state else []), event.number])


class DelegateService(Service):
    @command_handler
    async def delegate(self, command: DelegateCommand, commands: CommandGateway) -> None:
        await commands.send(WorkCommand(command.work_id, command.number))


class WorkProjection(Projection):
    @query_handler
    def find(self, query: WorkFindQuery) -> WorkView:
        return WorkView(query.work_id)

    @query_handler
    async def look(self, query: WorkLookQuery, queries: QueryGateway) -> WorkView:
        return await queries.query(WorkFindQuery(query.work_id))


COMPONENTS = (WorkAggregate, DelegateService, WorkProjection)


def work_options(script: Script) -> dict[str, Any]:
    """Return the options of a bundle that works by a script."""
    return {"components": COMPONENTS, "injector": {Script: script}}


def inside(bundle: EventoBundle) -> RunningBundle:
    """Return the parts of a running bundle, to count what they hold."""
    assert bundle._running is not None
    return bundle._running


async def assert_nothing_stays_behind(bundle: EventoBundle) -> None:
    """Fail unless no request is in flight, no place is taken, and no boundary is held."""
    parts = inside(bundle)
    # The appends and unlocks of cancelled callers end by themselves.
    await eventually(lambda: len(parts._boundaries) == 0 and len(parts._tasks._tasks) == 0, within=10)
    assert parts._sender.in_flight == 0
    assert parts._admission.running == 0
    assert not parts._admission._waiting
