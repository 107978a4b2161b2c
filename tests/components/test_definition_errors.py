"""Every mistake that is found when a component class is made; the message says where it is and how to mend it."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

import evento
from evento.errors import CapabilityError, DefinitionError

PREAMBLE = """
from __future__ import annotations
from datetime import datetime, timedelta
from typing import Any
import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection
from evento import *

class Open(DomainCommand['Opened']):
    key: AggregateId
class Close(DomainCommand):
    key: AggregateId
class Notify(ServiceCommand):
    key: str
class NotifyStrictly(ServiceCommand['Notified']):
    key: str
class Opened(DomainEvent):
    key: str
class Closed(DomainEvent):
    key: str
class AnyClosed(DomainEvent, abstract=True):
    key: str
class Notified(ServiceEvent):
    key: str
class V(View):
    key: str
class Find(Query[V]):
    key: str
class FindAll(Query[list[V]]):
    pass
class State(AggregateState):
    pass
class OtherState(AggregateState):
    pass
class Steps(SagaState):
    pass
class Base(Projector, version=1, abstract=True):
    @event_handler
    async def on_opened(self, event: Opened) -> None: ...
"""


def method(
    signature: str, *, decorator: str = "event_handler", base: str = "Projector, version=1", body: str = ": ..."
) -> str:
    return f"class Bad({base}):\n    @{decorator}\n    {signature}{body}\n"


def command(signature: str, decorator: str = "aggregate_command_handler", base: str = "Aggregate[State]") -> str:
    return method(signature, decorator=decorator, base=base)


def service(signature: str, decorator: str = "command_handler") -> str:
    return method(signature, decorator=decorator, base="Service")


def projection(signature: str, decorator: str = "query_handler") -> str:
    return method(signature, decorator=decorator, base="Projection")


def saga(signature: str, decorator: str = "saga_event_handler(association_property='key')") -> str:
    return method(signature, decorator=decorator, base="Saga[Steps], version=1")


def observer(signature: str, decorator: str = "event_handler") -> str:
    return method(signature, decorator=decorator, base="Observer, version=1")


EVENT = "async def on(self, event: Opened) -> None"
HANDLER = "    @event_handler\n    async def on(self, event: Opened) -> None: ...\n"

CASES: dict[str, tuple[str, str]] = {
    # what is injected
    "unknown injectable": (
        method("async def on(self, event: Opened, size: int) -> None"),
        "nothing is known to inject for size: int.*may ask for EventMessage, QueryGateway, Metadata, datetime, Proj",
    ),
    "union injectable": (
        method("async def on(self, event: Opened, what: Metadata | datetime) -> None"),
        "nothing is known to inject for what",
    ),
    "optional injectable that is always there": (
        method("async def on(self, event: Opened, metadata: Metadata | None) -> None"),
        "metadata is never None: write metadata: Metadata",
    ),
    "no type hint": (
        method("async def on(self, event: Opened, metadata) -> None"),
        "'metadata' has no type hint",
    ),
    "payload without type hint": (method("async def on(self, event) -> None"), "'event' has no type hint"),
    "variable arguments": (method("async def on(self, event: Opened, *rest: Any) -> None"), r"takes no \*rest"),
    "variable keywords": (method("async def on(self, event: Opened, **rest: Any) -> None"), r"\*\*rest"),
    "no payload parameter": (method("async def on(self) -> None"), "first parameter after self is the payload"),
    "payload by keyword only": (method("async def on(self, *, event: Opened) -> None"), "first parameter after self"),
    "unresolved hint": (
        method("async def on(self, event: Missing) -> None"),
        "name 'Missing' is not defined.*import the type at run time",
    ),
    "envelope of another kind": (
        method("async def on(self, event: Opened, message: CommandMessage[Open]) -> None"),
        r"not the envelope of this handler: use EventMessage\[Opened\]",
    ),
    "envelope of another payload": (
        method("async def on(self, event: Opened, message: EventMessage[Closed]) -> None"),
        r"does not carry Opened: use EventMessage\[Opened\]",
    ),
    # the payload
    "union payload": (
        method("async def on(self, event: Opened | Closed) -> None"),
        "union: write one handler for each",
    ),
    "abstract payload": (
        method("async def on(self, event: AnyClosed) -> None"),
        "AnyClosed is abstract: write one handler for each of its subclasses",
    ),
    "framework base as payload": (method("async def on(self, event: Event) -> None"), "Event is a base class"),
    "no payload class": (method("async def on(self, event: int) -> None"), "int is no payload"),
    "any payload": (method("async def on(self, event: Any) -> None"), "Any is no payload"),
    "command in an event handler": (
        method("async def on(self, event: Open) -> None"),
        "Open is a DomainCommand, but @event_handler handles a DomainEvent or ServiceEvent.*@aggregate_command_handler",
    ),
    "service command in an aggregate": (
        command("def do(self, command: Notify) -> Opened"),
        "Notify is a ServiceCommand.*@command_handler of a Service",
    ),
    "domain command in a service": (service("async def do(self, command: Open) -> None"), "Open is a DomainCommand"),
    "service event folded": (
        command("def do(self, event: Notified) -> State", "event_sourcing_handler"),
        "Notified is a ServiceEvent",
    ),
    "view in a query handler": (projection("async def do(self, query: V) -> V"), "V is a View"),
    "two handlers for one payload": (
        "class Bad(Projector, version=1):\n" + HANDLER + HANDLER.replace("def on", "def again"),
        r"on \(case.py:\d+\) and again \(case.py:\d+\) both handle Opened: keep one",
    ),
    "two handlers, one inherited": (
        "class Bad(Base):\n" + HANDLER,
        "on_opened .* and on .* both handle Opened.*must have its name",
    ),
    # what is returned
    "aggregate without return hint": (command("def do(self, command: Close)"), "return type hint is missing"),
    "service without return hint": (service("async def do(self, command: Notify)"), "missing: add .*'-> None'"),
    "projection without return hint": (projection("async def do(self, query: Find)"), "return type hint is missing"),
    "aggregate that may return None": (command("def do(self, c: Close) -> Closed | None"), "exactly one event"),
    "aggregate that returns None": (command("def do(self, command: Close) -> None"), "exactly one event or raises"),
    "aggregate that returns a service event": (
        command("def do(self, command: Close) -> Notified"),
        "returns Notified, but must return a DomainEvent",
    ),
    "aggregate that returns a list": (
        command("def do(self, command: Close) -> list[Closed]"),
        r"returns list\[.*Closed\], but must return a DomainEvent",
    ),
    "aggregate that returns an abstract event": (
        command("def do(self, command: Close) -> AnyClosed"),
        "AnyClosed, which is abstract: name the events",
    ),
    "aggregate that returns another event than the command says": (
        command("def do(self, command: Open) -> Closed"),
        "returns Closed, but Open says that it gives Opened",
    ),
    "service that returns a domain event": (
        service("async def do(self, command: Notify) -> Opened"),
        "must return a ServiceEvent",
    ),
    "service that may return None although the command names an event": (
        service("async def do(self, command: NotifyStrictly) -> Notified | None"),
        "returns Notified | None, but NotifyStrictly says that it gives Notified",
    ),
    "projection that returns another view": (
        projection("async def do(self, query: Find) -> list[V]"),
        r"returns list\[.*V\], but Find is answered with V",
    ),
    "projection that returns one view for many": (
        projection("async def do(self, query: FindAll) -> V"),
        "FindAll is answered with list",
    ),
    "projector that returns something": (method("async def on(self, event: Opened) -> int"), "nobody receives it"),
    "folding that returns an event": (
        command("def on(self, event: Opened) -> Opened", "event_sourcing_handler"),
        "return the state, State, or None",
    ),
    "saga that returns another state": (saga("async def on(self, event: Opened) -> State"), "return the state, Steps"),
    "a generator": (
        method("async def on(self, event: Opened) -> None:\n        yield", body=""),
        "a handler cannot yield",
    ),
    # capabilities
    "projector with commands": (
        method("async def on(self, event: Opened, commands: CommandGateway) -> None"),
        "a Projector may not send commands",
    ),
    "projection with commands": (
        projection("async def do(self, query: Find, commands: CommandGateway) -> V"),
        "a Projection may not send commands",
    ),
    "aggregate with queries": (
        command("def do(self, command: Close, queries: QueryGateway) -> Closed"),
        "an Aggregate may not send queries",
    ),
    "service with queries": (
        service("async def do(self, command: Notify, queries: QueryGateway) -> None"),
        "a Service may not send queries",
    ),
    "commands while folding": (
        command("def on(self, event: Opened, commands: CommandGateway) -> State", "event_sourcing_handler"),
        "folding runs again on every replay",
    ),
    "state in a service": (
        service("async def do(self, command: Notify, state: State) -> None"),
        "a Service has no state: remove the parameter",
    ),
    "state of another aggregate": (
        command("def do(self, command: Close, state: OtherState) -> Closed"),
        "OtherState is not the state of this Aggregate: use State",
    ),
    "state at the birth of an aggregate": (
        command("def do(self, command: Open, state: State) -> Opened", "aggregate_command_handler(init=True)"),
        "no state before the init command: remove the state parameter, or init=True",
    ),
    "state at the beginning of a saga": (
        saga(
            "async def on(self, event: Opened, state: Steps) -> None",
            "saga_event_handler(init=True, association_property='key')",
        ),
        r"None when the saga begins: write state: Steps \| None",
    ),
    "status outside a projector": (
        observer("async def on(self, event: Opened, status: ProjectorStatus) -> None"),
        "only projectors have a ProjectorStatus",
    ),
    "fencing token outside a service": (
        command("def do(self, command: Close, token: FencingToken) -> Closed"),
        "only the command handlers of services hold a lock",
    ),
    "connection outside a projector": (
        observer("async def on(self, event: Opened, connection: AsyncConnection) -> None"),
        "only projectors share the transaction",
    ),
    "connection of a parallel handler": (
        method("async def on(self, e: Opened, c: AsyncConnection) -> None", decorator="event_handler(executor='x')"),
        "run side by side and share no transaction",
    ),
    "connection in a plain def": (method("def on(self, e: Opened, c: AsyncConnection) -> None"), "needs awaiting"),
    # roles
    "decorator of another role": (
        method(EVENT, base="Service"),
        "on has @event_handler, which is not for a Service: use @command_handler",
    ),
    "saga handler in a projector": (
        method(EVENT, decorator="saga_event_handler(association_property='key')"),
        "not for a Projector: use @event_handler",
    ),
    "two roles": (method(EVENT, base="Projector, Observer, version=1"), "is a Projector and an Observer"),
    "two decorators": (
        "class Bad(Projector, version=1):\n    @event_handler\n    @query_handler\n    def on(self, e: Opened): ...",
        "marked with @query_handler already",
    ),
    "no role": ("from evento.components import Component\nclass Bad(Component): ...", "derive it from Aggregate"),
    "static method": (
        "class Bad(Projector, version=1):\n    @staticmethod\n    @event_handler\n    def on(event: Opened): ...",
        "on is a staticmethod: a handler is a plain method",
    ),
    "property": (
        "class Bad(Projector, version=1):\n    @property\n    @event_handler\n    def on(self): ...",
        "on is a property",
    ),
    "decorator on a static method": (
        "class Bad(Projector, version=1):\n    @event_handler\n    @staticmethod\n    def on(event: Opened): ...",
        "@event_handler marks methods, not",
    ),
    "options by position": (
        "class Bad(Projector, version=1):\n    @event_handler(3)\n    def on(event: Opened): ...",
        "@event_handler marks methods, not 3",
    ),
    "override with no method": ("class Bad(Base):\n    on_opened = 5", "overrides a handler, but is no method"),
    # options of handlers
    "negative retry": (method(EVENT, decorator="event_handler(retry=-2)"), "retry=-2 must be"),
    "retry that is no number": (method(EVENT, decorator="event_handler(retry='3')"), "retry='3' must be"),
    "delay that is no timedelta": (method(EVENT, decorator="event_handler(retry_delay=1)"), "must be a timedelta"),
    "negative delay": (
        method(EVENT, decorator="event_handler(retry_delay=timedelta(seconds=-1))"),
        "must be a timedelta from 0",
    ),
    "executor that is no name": (method(EVENT, decorator="event_handler(executor=5)"), "executor=5 must be"),
    "executor on an async command handler": (
        service("async def do(self, command: Notify) -> None", "command_handler(executor='threads')"),
        "moves a plain 'def' to threads: remove it, or remove 'async'",
    ),
    "executor on an async query handler": (
        projection("async def do(self, query: Find) -> V", "query_handler(executor='threads')"),
        "moves a plain 'def' to threads",
    ),
    "executor on an async aggregate handler": (
        command("async def do(self, c: Close) -> Closed", "aggregate_command_handler(executor='threads')"),
        "moves a plain 'def' to threads",
    ),
    "async folding": (
        command("async def on(self, event: Opened) -> State", "event_sourcing_handler"),
        "make it a plain 'def'",
    ),
    "saga without association": (saga(EVENT, "saga_event_handler"), "association_property= is missing"),
    "association that is no field": (
        saga(EVENT, "saga_event_handler(association_property='id')"),
        "'id' is no field of Opened: use one of key",
    ),
    "plain method as invocation": (
        method("def do(self) -> int", decorator="invocation_handler", base="Invoker"),
        "make it 'async def'",
    ),
    # options of classes
    "projector without version": (method(EVENT, base="Projector"), "version= is missing.*version=1"),
    "observer without version": (method(EVENT, base="Observer"), "version= is missing"),
    "saga without version": (method(EVENT, base="Saga[Steps]"), "version= is missing|not for a Saga"),
    "version zero": (method(EVENT, base="Projector, version=0"), "version=0 must be a whole number from 1"),
    "version that is no number": (method(EVENT, base="Projector, version='1'"), "version='1' must be"),
    "unknown class keyword": (
        method(EVENT, base="Projector, version=1, snapshot_frequency=3"),
        "unknown class keyword 'snapshot_frequency': a Projector takes version, wait_for_head_reached, contexts, abst",
    ),
    "no contexts": (method(EVENT, base="Projector, version=1, contexts=()"), r"contexts=\(\) must be a tuple"),
    "contexts as one string": (method(EVENT, base="Projector, version=1, contexts='eu'"), "contexts='eu' must be"),
    "empty context": (method(EVENT, base="Observer, version=1, contexts=('',)"), "must be a tuple of one or more"),
    "context twice": (method(EVENT, base="Observer, version=1, contexts=('a', 'a')"), "names a context twice"),
    "wait that is no flag": (method(EVENT, base="Projector, version=1, wait_for_head_reached=1"), "True or False"),
    "snapshot frequency": (
        command("def d(self, c: Close) -> Closed", base="Aggregate[State], snapshot_frequency=-2"),
        "-2",
    ),
    "snapshot version": (
        command("def d(self, c: Close) -> Closed", base="Aggregate[State], snapshot_version=0"),
        "from 1",
    ),
    "projectors that are none": (
        method("def d(self, q: Find) -> V", decorator="query_handler", base="Projection, projectors=(State,)"),
        "must be a tuple of Projector classes",
    ),
    "no handlers": (
        "class Bad(Service): ...",
        "no handlers: mark a method with @command_handler, or say abstract=True",
    ),
    # states
    "aggregate without state": (command("def d(self, c: Close) -> Closed", base="Aggregate"), "state type is missing"),
    "saga without state": (
        method(EVENT, decorator="saga_event_handler(association_property='key')", base="Saga, version=1"),
        r"state type is missing: write Bad\(Saga\[MyState\]\)",
    ),
    "state of another kind": (
        command("def d(self, c: Close) -> Closed", base="Aggregate[Steps]"),
        "Steps is no AggregateState",
    ),
    "state that is no class": (command("def d(self, c: Close) -> Closed", base="Aggregate[list[State]]"), "is no Aggr"),
    "state that cannot be decoded": (
        "class Odd(AggregateState):\n    what: State | Steps\n"
        + command("def d(self, c: Close) -> Closed", base="Aggregate[Odd]"),
        "state type Odd cannot be kept as JSON",
    ),
    "state of a type that msgspec does not know": (
        "class Thing: ...\nclass Odd(AggregateState):\n    what: list[Thing]\n"
        + command("def d(self, c: Close) -> Closed", base="Aggregate[Odd]"),
        "state type Odd cannot be kept as JSON .*case.Thing is no struct",
    ),
    "state that cannot be resolved": (
        "class Odd(AggregateState):\n    what: Missing\n"
        + command("def d(self, c: Close) -> Closed", base="Aggregate[Odd]"),
        "state type Odd cannot be kept as JSON .*Missing",
    ),
}

CAPABILITIES = [
    "projector with commands",
    "projection with commands",
    "aggregate with queries",
    "service with queries",
    "commands while folding",
]


def define(source: str) -> None:
    module = ModuleType("case")
    sys.modules["case"] = module
    try:
        exec(compile(PREAMBLE + source, "case.py", "exec"), vars(module))
    finally:
        del sys.modules["case"]


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_found_when_the_class_is_made(case: str) -> None:
    source, message = CASES[case]

    with pytest.raises(DefinitionError, match=message) as caught:
        define(source)

    error = caught.value
    assert isinstance(error, CapabilityError) == (case in CAPABILITIES)
    assert error.data.get("file", "case.py") == "case.py"
    if "marks methods, not" not in error.message:
        assert "Bad" in error.message
        assert error.data["line"] > PREAMBLE.count("\n")
        assert f"case.py:{error.data['line']}" in error.message


def test_without_a_mistake_the_same_sources_pass() -> None:
    define(method(EVENT))
    define(command("def do(self, command: Close) -> Closed"))
    define(service("async def do(self, command: NotifyStrictly) -> Notified"))
    define(projection("async def do(self, query: FindAll) -> list[V]"))
    define(saga(EVENT))
    define(observer("async def on(self, event: Opened, commands: CommandGateway, queries: QueryGateway) -> None"))
    define(method("async def do(self) -> int", decorator="invocation_handler", base="Invoker"))


@pytest.mark.parametrize(
    "source",
    [
        service("async def do(self, command: Notify) -> None"),
        service("async def do(self, command: Notify) -> Notified | None"),
        projection("async def do(self, query: Find) -> Any"),
        method("def on(self, event: Opened)"),
        method("def on(self, event: Opened) -> Any"),
        command("def on(self, event: Opened, state: State | None) -> State | None", "event_sourcing_handler"),
        command("def do(self, command: Close, state: AggregateState) -> Opened | Closed"),
        method("async def on(self, event: Opened, message: EventMessage[Any], again: EventMessage) -> None"),
        method(EVENT, decorator="event_handler(executor='lanes')"),
        command("def do(self, command: Close) -> Closed", "aggregate_command_handler(executor='threads')"),
        "class Bad(Projector, abstract=True): ...",
    ],
)
def test_what_is_not_a_mistake(source: str) -> None:
    define(source)


def test_the_preamble_is_the_public_interface() -> None:
    assert set(evento.__all__) >= {"Aggregate", "Projector", "event_handler", "CommandGateway"}
