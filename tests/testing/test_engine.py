"""The kit and a running bundle agree: the same history gives the same states, commands, ids and dead events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kit import fails
from sqlalchemy import text
from sqlalchemy.event import listens_for
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from evento import (
    Aggregate,
    AggregateId,
    AggregateState,
    CommandGateway,
    CommandMessage,
    CommandRejected,
    DefinitionError,
    DomainCommand,
    DomainEvent,
    EventMessage,
    HandlerCall,
    Interceptor,
    Observer,
    Projector,
    Saga,
    SagaState,
    Service,
    ServiceCommand,
    ServiceEvent,
    TransientError,
    aggregate_command_handler,
    command_handler,
    event_handler,
    event_sourcing_handler,
    saga_event_handler,
)
from evento.consumers import ConsumerId, DeadEvent, SqlConsumerStateStore
from evento.testing import (
    aggregate_test,
    embedded,
    event_message,
    observer_test,
    projector_test,
    saga_test,
    service_test,
)

TICK = timedelta(milliseconds=1)


class JobOpenedEvent(DomainEvent):
    job_id: str


class JobDoneEvent(DomainEvent):
    job_id: str
    hours: int


class JobClosedEvent(DomainEvent):
    job_id: str


class BilledEvent(ServiceEvent):
    bill: str
    hours: int


class JobOpenCommand(DomainCommand[JobOpenedEvent]):
    job_id: AggregateId


class JobDoCommand(DomainCommand[JobDoneEvent]):
    job_id: AggregateId
    hours: int


class JobCloseCommand(DomainCommand[JobClosedEvent]):
    job_id: AggregateId


class BillCommand(ServiceCommand[BilledEvent]):
    bill: str
    hours: int


class JobState(AggregateState):
    pass


class JobAggregate(Aggregate[JobState]):
    @aggregate_command_handler(init=True)
    def open(self, command: JobOpenCommand) -> JobOpenedEvent:
        return JobOpenedEvent(command.job_id)

    @aggregate_command_handler
    def do(self, command: JobDoCommand, state: JobState) -> JobDoneEvent:
        return JobDoneEvent(command.job_id, command.hours)

    @aggregate_command_handler
    def close(self, command: JobCloseCommand, state: JobState) -> JobClosedEvent:
        return JobClosedEvent(command.job_id)

    @event_sourcing_handler
    def on_opened(self, event: JobOpenedEvent) -> JobState:
        return JobState()

    @event_sourcing_handler
    def on_done(self, event: JobDoneEvent, state: JobState) -> None: ...

    @event_sourcing_handler
    def on_closed(self, event: JobClosedEvent, state: JobState) -> None: ...


class Office:
    """Takes bills: nothing below zero, and thirteen only when it is asked again."""

    def __init__(self) -> None:
        self.asked: dict[str, CommandMessage[Any]] = {}
        self._superstitious = True

    def bill(self, command: BillCommand) -> BilledEvent:
        if command.hours < 0:
            raise CommandRejected("time does not run backwards")
        if command.hours == 13 and self._superstitious:
            self._superstitious = False
            raise CommandRejected("thirteen")
        return BilledEvent(command.bill, command.hours)


class BillService(Service):
    def __init__(self, office: Office) -> None:
        self._office = office

    @command_handler
    def bill(self, command: BillCommand, message: CommandMessage[BillCommand]) -> BilledEvent:
        self._office.asked.setdefault(message.message_id, message)
        return self._office.bill(command)


class JobSagaState(SagaState):
    seen: list[str] = []
    billed: int = 0


class JobSaga(Saga[JobSagaState], version=1):
    """Bills each job that is done; the bill comes back by an association of its own."""

    @saga_event_handler(init=True, association_property="job_id")
    def on_opened(self, event: JobOpenedEvent, state: JobSagaState | None) -> JobSagaState:
        state = state or JobSagaState()
        state.set_association("job_id", event.job_id)
        return state

    @saga_event_handler(association_property="job_id", retry=1, retry_delay=TICK)
    async def on_done(
        self, event: JobDoneEvent, state: JobSagaState, message: EventMessage[Any], commands: CommandGateway
    ) -> None:
        state.seen.append(f"{event.hours}@{message.position}")
        state.set_association("bill", f"{event.job_id}/{message.version}")
        await commands.send(BillCommand(f"{event.job_id}/{message.version}", event.hours))

    @saga_event_handler(association_property="bill")
    def on_billed(self, event: BilledEvent, state: JobSagaState) -> JobSagaState:
        state.billed += event.hours
        return state

    @saga_event_handler(association_property="job_id")
    def on_closed(self, event: JobClosedEvent, state: JobSagaState) -> None:
        state.end()


class JobObserver(Observer, version=1):
    """Bills each job that is done."""

    @event_handler(retry=1, retry_delay=TICK)
    async def on_done(self, event: JobDoneEvent, commands: CommandGateway) -> None:
        await commands.send(BillCommand(f"{event.job_id}/setup", 1))
        await commands.send(BillCommand(event.job_id, event.hours))


class History(list[EventMessage[Any]]):
    """Events in their order."""


class Journal(Projector, version=1):
    """Keeps all events."""

    def __init__(self, history: History) -> None:
        self._history = history

    @event_handler
    def on_opened(self, event: JobOpenedEvent, message: EventMessage[JobOpenedEvent]) -> None:
        self._history.append(message)

    @event_handler
    def on_done(self, event: JobDoneEvent, message: EventMessage[JobDoneEvent]) -> None:
        self._history.append(message)

    @event_handler
    def on_closed(self, event: JobClosedEvent, message: EventMessage[JobClosedEvent]) -> None:
        self._history.append(message)

    @event_handler
    def on_billed(self, event: BilledEvent, message: EventMessage[BilledEvent]) -> None:
        self._history.append(message)


class Calls(Interceptor):
    """Writes down which attempts a component has made."""

    def __init__(self, component: str) -> None:
        self.seen: list[str] = []
        self._component = component

    async def before(self, call: HandlerCall) -> None:
        if call.handler.id.startswith(self._component):
            self.seen.append(f"{call.handler.name} {call.message.message_id} {call.handling.attempt}")


JOBS: Sequence[DomainCommand[Any]] = (
    JobOpenCommand("A"),
    JobOpenCommand("B"),
    JobDoCommand("A", 13),  # refused once
    JobDoCommand("B", -1),  # refused for ever
    JobDoCommand("A", 2),
    JobDoCommand("B", 3),  # waits for a saga
    JobCloseCommand("A"),
    JobDoCommand("A", 4),  # finds no saga any more
    JobOpenCommand("C"),
    JobDoCommand("C", 5),
)


@dataclass
class Told:
    """What a bundle, or the kit, tells of a history."""

    commands: list[tuple[str, Any]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    dead: list[DeadEvent] = field(default_factory=list)
    states: list[JobSagaState] = field(default_factory=list)


async def told_by_a_bundle(component: type, folder: Path) -> tuple[History, Told]:
    """Run the jobs in a bundle."""
    office, history, calls = Office(), History(), Calls(component.__name__)
    url = f"sqlite+aiosqlite:///{folder / 'consumers.db'}"
    async with embedded(
        components=[JobAggregate, BillService, component, Journal],
        injector={Office: office, History: history},
        consumer_state_store=url,
        interceptors=[calls],
    ) as system:
        for command in JOBS:
            await system.commands.send(command)
            await system.consumers_caught_up()
        dead = [comparable(event) for event in await system.consumers.dead(component.__name__)]
    async with SqlConsumerStateStore(url, existing=True) as store:
        stored = await store.sagas(ConsumerId("test", component.__name__, 1, "*"))
    states = [msgspec.json.decode(saga.state, type=JobSagaState) for saga in stored]
    return history, Told(commands_in(office.asked.values()), calls.seen, dead, states)


def told_by_the_kit(component: Any, history: Sequence[EventMessage[Any]]) -> Told:
    """Handle each event of a history in the kit, on what came before."""
    told, states = Told(), dict[Any, JobSagaState]()
    before: Callable[[Any], Any] = lambda test: test  # noqa: E731
    for event in history:
        calls = Calls(component.__name__)
        make = saga_test if issubclass(component, Saga) else observer_test
        outcome = before(make(component, answers={BillCommand: Office().bill}, interceptors=[calls])).when(event)
        told.commands += commands_in(outcome.commands)
        told.calls += [call for call in calls.seen if event.message_id in call]
        state = getattr(outcome, "state", None)
        if state is not None:
            states[state.get_association("job_id")] = state
        if outcome.dead_event is not None:
            told.dead.append(comparable(outcome.dead_event))
        before = partial(give, before, event, dead=outcome.dead_event is not None)
    told.states = [state for state in states.values() if not state.ended]
    return told


def give(before: Callable[[Any], Any], event: EventMessage[Any], test: Any, *, dead: bool) -> Any:
    test = before(test)
    return test.given_dead(event) if dead else test.given(event)


def commands_in(messages: Iterable[CommandMessage[Any]]) -> list[tuple[str, Any]]:
    return [(message.message_id, message.payload) for message in messages]


def comparable(event: DeadEvent) -> DeadEvent:
    return replace(event, traceback="", parked_at=0)


async def test_a_saga_does_in_the_kit_what_it_does_in_a_bundle(tmp_path: Path) -> None:
    history, bundle = await told_by_a_bundle(JobSaga, tmp_path)
    kit = told_by_the_kit(JobSaga, history)

    assert kit == bundle
    assert [len(told) for told in (kit.commands, kit.dead, kit.states)] == [4, 2, 2]
    assert [event.waiting for event in kit.dead] == [False, True]
    assert sorted(state.billed for state in kit.states) == [0, 5]


async def test_an_observer_does_in_the_kit_what_it_does_in_a_bundle(tmp_path: Path) -> None:
    history, bundle = await told_by_a_bundle(JobObserver, tmp_path)
    kit = told_by_the_kit(JobObserver, history)

    assert kit == bundle
    assert [len(told) for told in (kit.commands, kit.dead)] == [12, 1]


# Failures

OPENED, DONE, CLOSED = JobOpenedEvent("A"), JobDoneEvent("A", 2), JobClosedEvent("A")


def bills(*replies: Exception | None) -> Callable[[BillCommand], BilledEvent]:
    """Return an answer that fails as told, and then no more."""
    left = list(replies)

    def bill(command: BillCommand) -> BilledEvent:
        if left and (error := left.pop(0)):
            raise error
        return BilledEvent(command.bill, command.hours)

    return bill


def test_a_handler_is_tried_again_and_what_it_sends_again_counts_once() -> None:
    calls = Calls("JobObserver")
    test = observer_test(JobObserver, answers={BillCommand: bills(None, ValueError("busy"))}, interceptors=[calls])
    outcome = test.when(DONE)

    outcome.expect_commands(BillCommand("A/setup", 1), BillCommand("A", 2)).expect()
    assert [call.rpartition(" ")[2] for call in calls.seen] == ["1", "2"]
    assert outcome.dead_event is None


def test_what_a_failed_attempt_has_changed_in_a_state_is_gone() -> None:
    test = saga_test(JobSaga, answers={BillCommand: bills(ValueError("busy"))}).given(OPENED)

    state = JobSagaState(seen=["2@2"], associations={"job_id": "A", "bill": "A/None"})
    test.when(DONE).expect_state(state)


def test_an_event_that_fails_for_good_is_dead() -> None:
    outcome = observer_test(JobObserver, answers={BillCommand: CommandRejected("no")}).when(DONE)

    assert outcome.dead_event is not None
    assert (outcome.dead_event.attempts, outcome.dead_event.error_type) == (2, "CommandRejected")
    outcome.expect_error(CommandRejected, match="no")


@pytest.mark.parametrize("make", [saga_test, observer_test])
def test_what_a_consumer_would_wait_out_is_tried_once(make: Any) -> None:
    asked: list[BillCommand] = []

    def down(command: BillCommand) -> None:
        asked.append(command)
        raise TransientError("down")

    component = JobSaga if make is saga_test else JobObserver
    outcome = make(component, answers={BillCommand: down}).given(OPENED).when(DONE)

    outcome.expect_error(TransientError)
    assert outcome.dead_event is None
    assert len(asked) == 1


def test_later_events_of_the_saga_wait_behind_a_dead_one() -> None:
    test = saga_test(JobSaga, answers={BillCommand: Office().bill}).given(OPENED, JobOpenedEvent("B"))
    test = test.given_dead(JobDoneEvent("A", -1), DONE)

    outcome = test.when(CLOSED).expect_waiting()
    test.when(JobClosedEvent("B")).expect_ended()
    test.when(JobOpenedEvent("C")).expect()
    with fails(
        "JobSaga: the event was not handled", "JobDoneEvent(job_id='A', hours=-1), which is dead", "waits behind"
    ):
        outcome.expect_ended()
    with fails("JobSaga: the event waits", "expected:\n    an ignored event"):
        outcome.expect_ignored()


def test_later_events_of_the_aggregate_wait_behind_a_dead_one() -> None:
    bad, good = (event_message(JobDoneEvent("A", hours), aggregate_id="A") for hours in (-1, 2))
    seen: list[int] = []

    class Hours(Projector, version=1):
        @event_handler(retry=0)
        def on_done(self, event: JobDoneEvent) -> None:
            if event.hours < 0:
                raise ValueError
            seen.append(event.hours)

    test = projector_test(Hours).given_dead(bad)
    test.when(good).expect_waiting()
    test.when(event_message(DONE, aggregate_id="B")).expect()
    assert seen == [2]


def test_nothing_waits_behind_a_dead_event_of_an_observer() -> None:
    bad = event_message(JobDoneEvent("A", -1), aggregate_id="A")
    test = observer_test(JobObserver, answers={BillCommand: Office().bill}).given_dead(bad)

    outcome = test.when(event_message(DONE, aggregate_id="A")).expect()
    with fails("JobObserver: the event does not wait", "got:\n    no error"):
        outcome.expect_waiting()


def test_a_given_event_is_as_dead_as_it_is_said_to_be() -> None:
    test = saga_test(JobSaga, answers={BillCommand: Office().bill}).given(OPENED)

    with fails("JobSaga: the given JobDoneEvent(job_id='A', hours=2) is not dead", "got:\n    no error"):
        test.given_dead(DONE).when(CLOSED)
    with fails("JobSaga: the given JobDoneEvent(job_id='A', hours=2) was not handled", "waits behind a dead one of"):
        test.given_dead(JobDoneEvent("A", -1)).given(DONE).when(CLOSED)


def test_an_assertion_of_the_test_ends_it_at_once() -> None:
    asked: list[BillCommand] = []

    def look(command: BillCommand) -> None:
        asked.append(command)
        raise AssertionError("another bill was expected")

    with pytest.raises(AssertionError, match="another bill"):
        observer_test(JobObserver, answers={BillCommand: look}).when(DONE)
    assert len(asked) == 1


def test_each_context_has_sagas_of_its_own() -> None:
    class TwoRegions(JobSaga, version=1, contexts=("eu", "us")):
        """Reads two regions."""

    test = saga_test(TwoRegions).given(JobOpenedEvent("A", context="eu"))

    test.when(JobClosedEvent("A", context="us")).expect_no_saga()
    test.when(JobClosedEvent("A", context="eu")).expect_ended()
    test.when(CLOSED).expect_ignored()


class Loud(Interceptor):
    """Changes what handlers return."""

    async def after(self, call: HandlerCall, result: Any) -> Any:
        return JobDoneEvent(result.job_id, 100) if isinstance(result, JobDoneEvent) else result


def test_interceptors_run_around_the_handlers_of_every_kind() -> None:
    test = aggregate_test(JobAggregate, interceptors=[Loud()]).given(OPENED)
    test.when(JobDoCommand("A", 1)).expect(JobDoneEvent("A", 100))

    calls = Calls("BillService")
    service_test(BillService, injector={Office: Office()}, interceptors=[calls]).when(BillCommand("A", 1))
    assert len(calls.seen) == 1


# Databases


class Jobs(Projector, version=1):
    """Keeps jobs in a table, whose constraint is checked at the end of a transaction."""

    @event_handler(retry=1)
    async def on_done(self, event: JobDoneEvent, connection: AsyncConnection) -> None:
        await connection.execute(text("INSERT INTO jobs VALUES (:hours, 1)"), {"hours": event.hours})

    @event_handler(retry=0)
    async def on_closed(self, event: JobClosedEvent, connection: AsyncConnection) -> None:
        await connection.commit()


async def make_jobs(connection: AsyncConnection) -> None:
    await connection.execute(
        text("CREATE TABLE jobs (id INTEGER PRIMARY KEY, parent REFERENCES jobs DEFERRABLE INITIALLY DEFERRED)")
    )


async def jobs(connection: AsyncConnection) -> list[int]:
    return list(await connection.scalars(text("SELECT id FROM jobs")))


async def test_what_a_database_refuses_at_the_commit_is_an_error(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}")

    @listens_for(engine.sync_engine, "connect")
    def check_foreign_keys(connection: Any, _: object) -> None:
        connection.execute("PRAGMA foreign_keys = ON")

    test = projector_test(Jobs, connection=engine, setup=make_jobs)
    outcome = await test.when_async(DONE)

    outcome.expect_error(IntegrityError)
    assert outcome.dead_event is not None
    assert outcome.dead_event.attempts == 2
    async with engine.connect() as connection:
        assert await jobs(connection) == []
    await engine.dispose()


def test_a_transaction_is_not_for_handlers_to_end() -> None:
    test = projector_test(Jobs, setup=make_jobs).given(JobDoneEvent("A", 1))

    outcome = test.when(CLOSED).expect_error(DefinitionError, match="injected connection")
    outcome.expect(jobs, [1])
