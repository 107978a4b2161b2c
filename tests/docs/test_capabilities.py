"""The tables of what components may do and ask for are what the classes allow."""

import re
from datetime import datetime

import pytest
from documents import DOCS
from sqlalchemy.ext.asyncio import AsyncConnection

from evento import (
    Aggregate,
    AggregateId,
    AggregateState,
    CommandGateway,
    CommandMessage,
    DefinitionError,
    DomainCommand,
    DomainEvent,
    EventMessage,
    FencingToken,
    Metadata,
    Observer,
    Projection,
    Projector,
    ProjectorStatus,
    Query,
    QueryGateway,
    QueryMessage,
    Saga,
    SagaState,
    Service,
    ServiceCommand,
    View,
    aggregate_command_handler,
    command_handler,
    event_handler,
    event_sourcing_handler,
    query_handler,
    saga_event_handler,
)
from evento.components import Role

PAGE = (DOCS / "components/index.md").read_text()


class Happened(DomainEvent):
    id: str


class Do(DomainCommand[Happened]):
    id: AggregateId


class Serve(ServiceCommand[None]):
    id: str


class Shown(View):
    id: str


class Show(Query[Shown]):
    id: str


class Decided(AggregateState):
    pass


class Led(SagaState):
    pass


def aggregate_command(wanted: object) -> None:
    class Subject(Aggregate[Decided]):
        @aggregate_command_handler
        async def handle(self, command: Do, x: wanted) -> Happened: ...  # type: ignore[valid-type,empty-body]


def event_sourcing(wanted: object) -> None:
    class Subject(Aggregate[Decided]):
        @event_sourcing_handler
        def handle(self, event: Happened, x: wanted) -> Decided: ...  # type: ignore[valid-type,empty-body]


def service_command(wanted: object) -> None:
    class Subject(Service):
        @command_handler
        async def handle(self, command: Serve, x: wanted) -> None: ...  # type: ignore[valid-type]


def query(wanted: object) -> None:
    class Subject(Projection):
        @query_handler
        async def handle(self, query: Show, x: wanted) -> Shown: ...  # type: ignore[valid-type,empty-body]


def projector(wanted: object) -> None:
    class Subject(Projector, version=1):
        @event_handler
        async def handle(self, event: Happened, x: wanted) -> None: ...  # type: ignore[valid-type]


def saga(wanted: object) -> None:
    class Subject(Saga[Led], version=1):
        @saga_event_handler(association_property="id")
        async def handle(self, event: Happened, x: wanted) -> None: ...  # type: ignore[valid-type]


def observer(wanted: object) -> None:
    class Subject(Observer, version=1):
        @event_handler
        async def handle(self, event: Happened, x: wanted) -> None: ...  # type: ignore[valid-type]


HANDLERS = {
    "aggregate command": (aggregate_command, CommandMessage, Decided),
    "event sourcing": (event_sourcing, EventMessage, Decided),
    "service command": (service_command, CommandMessage, Decided),
    "query": (query, QueryMessage, Decided),
    "projector": (projector, EventMessage, Decided),
    "saga": (saga, EventMessage, Led),
    "observer": (observer, EventMessage, Led),
}
INJECTED: dict[str, type] = {
    "`CommandGateway`": CommandGateway,
    "`QueryGateway`": QueryGateway,
    "`Metadata`": Metadata,
    "`datetime`": datetime,
    "`ProjectorStatus`": ProjectorStatus,
    "`FencingToken`": FencingToken,
    "SQLAlchemy's `AsyncConnection`": AsyncConnection,
}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def table(first: str) -> list[list[str]]:
    lines = PAGE[PAGE.index(first) :].partition("\n\n")[0].splitlines()
    return [cells(line) for line in lines if not line.startswith("|---")]


HEADS, *ROWS = table("| type | aggregate command |")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.sub(r"\W+", " ", row[0]).strip())
def test_what_handlers_may_ask_for(row: list[str]) -> None:
    assert list(HANDLERS) == HEADS[1:]
    for head, cell in zip(HEADS[1:], row[1:], strict=True):
        make, envelope, state = HANDLERS[head]
        special = {"the envelope": envelope, "the state": state}
        [wanted] = [cls for name, cls in {**INJECTED, **special}.items() if row[0].startswith(name)]
        if cell.startswith("yes"):
            make(wanted)
        else:
            with pytest.raises(DefinitionError):
                make(wanted)


def test_what_roles_may_send() -> None:
    _, *rows = table("| type | handles |")
    told = {re.findall(r"\w+", row[0])[0]: (row[2] == "yes", row[3] == "yes") for row in rows}

    assert told == {role.value: (role.may_send_commands, role.may_query) for role in Role}
