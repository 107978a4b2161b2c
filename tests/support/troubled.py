"""Aggregates that break rules, ask for everything, or send commands: for the tests of the testing kit."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import Any

from evento import (
    Aggregate,
    AggregateId,
    AggregateState,
    CommandGateway,
    DomainCommand,
    DomainEvent,
    Metadata,
    PayloadError,
    ServiceCommand,
    ServiceEvent,
    aggregate_command_handler,
    event_sourcing_handler,
)


class KeptEvent(DomainEvent):
    trouble_id: str


class NotedEvent(DomainEvent):
    trouble_id: str
    note: str


class StartCommand(DomainCommand[KeptEvent | NotedEvent]):
    trouble_id: AggregateId
    way: str


class TroubleCommand(DomainCommand[KeptEvent]):
    trouble_id: AggregateId
    way: str


class ThreadedCommand(DomainCommand[KeptEvent]):
    trouble_id: AggregateId


class TroubledState(AggregateState):
    notes: list[Any] = []


class Troubled(Aggregate[TroubledState]):
    """Does what its commands say, right or wrong."""

    def __init__(self, loop: object = None) -> None:
        self._loop = loop
        self._seen = 0

    @aggregate_command_handler(init=True)
    async def start(self, command: StartCommand, metadata: Metadata, now: datetime) -> KeptEvent | NotedEvent:
        match command.way:
            case "fail":
                raise ZeroDivisionError("division by zero")
            case "wait":
                await asyncio.Event().wait()
            case "wrong type":
                return KeptEvent(7)  # type: ignore[arg-type]
            case "payload error":
                raise PayloadError("mine")
            case "own loop":
                assert asyncio.get_running_loop() is self._loop
            case "metadata":
                return NotedEvent(command.trouble_id, f"{metadata['user']} {now.isoformat()}")
            case way:
                return NotedEvent(command.trouble_id, way)
        return KeptEvent(command.trouble_id)

    @aggregate_command_handler
    def decide(self, command: TroubleCommand, state: TroubledState) -> KeptEvent:
        if command.way.startswith("change"):
            state.notes.append("changed")
        if command.way.endswith("fail"):
            raise ZeroDivisionError("division by zero")
        return KeptEvent(command.trouble_id)

    @aggregate_command_handler(executor="threads")
    def in_a_thread(self, command: ThreadedCommand, state: TroubledState) -> KeptEvent:
        return KeptEvent(command.trouble_id)

    @event_sourcing_handler
    def on_kept(
        self, event: KeptEvent, state: TroubledState | None, metadata: Metadata, now: datetime
    ) -> TroubledState | None:
        if state is None:
            return TroubledState(notes=[f"{metadata['user']} {now.isoformat()}"] if metadata else [])
        return None

    @event_sourcing_handler
    def on_noted(self, event: NotedEvent) -> TroubledState:
        notes: dict[str, Any] = {
            "clock": datetime.now(timezone.utc),
            "tuple": ("a", "b"),
            "object": object,
        }
        if event.note == "self":
            self._seen += 1
        if event.note == "once":
            self._seen += 1
            if self._seen > 1:
                raise LookupError("folded already")
        if event.note == "raise":
            raise LookupError("cannot fold")
        return TroubledState(notes=[notes.get(event.note, self._seen)])


class Photographed(Troubled, snapshot_frequency=0):
    """The same, with snapshots on."""


class NumberedEvent(ServiceEvent):
    number: int


class NumberCommand(ServiceCommand[NumberedEvent | None]):
    number: int


class SentEvent(DomainEvent):
    sender_id: str
    answers: list[int | None]


class AgainEvent(DomainEvent):
    sender_id: str


class SendCommand(DomainCommand[SentEvent]):
    sender_id: AggregateId
    count: int


class AgainCommand(DomainCommand[AgainEvent]):
    sender_id: AggregateId


class Sender(Aggregate[AggregateState]):
    """Sends as many commands as it is told."""

    def __init__(self, commands: CommandGateway) -> None:
        self._commands = commands

    @aggregate_command_handler(init=True)
    async def send(self, command: SendCommand, commands: CommandGateway) -> SentEvent:
        assert commands is self._commands
        answers = [await commands.send(NumberCommand(number)) for number in range(1, command.count + 1)]
        return SentEvent(command.sender_id, [None if answer is None else answer.number for answer in answers])

    @aggregate_command_handler
    def again(self, command: AgainCommand, state: AggregateState) -> AgainEvent:
        return AgainEvent(command.sender_id)


class LimitedEvent(DomainEvent):
    limited_id: str
    limit: int


class LimitCommand(DomainCommand[LimitedEvent]):
    limited_id: AggregateId


class Limited(Aggregate[AggregateState]):
    """Needs something from an injector."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    @aggregate_command_handler(init=True)
    def place(self, command: LimitCommand) -> LimitedEvent:
        return LimitedEvent(command.limited_id, self._limit)
