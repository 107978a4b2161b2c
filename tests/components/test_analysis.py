"""Source analysis: which commands and queries handlers send, and on which line."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, cast

import msgspec
import pytest

from evento import (
    AggregateId,
    CommandGateway,
    DomainCommand,
    DomainEvent,
    Invoker,
    Observer,
    Query,
    QueryGateway,
    Service,
    ServiceCommand,
    View,
    command_handler,
    event_handler,
    invocation_handler,
)
from evento.components import component_definition
from evento.components.analysis import Send, Sends, sends_of

F = TypeVar("F", bound=Callable[..., Any])


class Placed(DomainEvent):
    key: str


class Base(DomainCommand, abstract=True):
    key: AggregateId


class Reserve(Base):
    @classmethod
    def of(cls, key: str) -> Self:
        return cls(key)


class Release(Base, name="release-stock"):
    pass


class Confirm(Base):
    pass


class Charge(ServiceCommand):
    key: str


class Stock(View):
    amount: int


class FindStock(Query[Stock]):
    key: str


class Helper:
    def __init__(self, commands: CommandGateway) -> None:
        self.commands = commands


RESERVE = Reserve("K_1")


async def reserve(commands: CommandGateway, key: str) -> None:
    await commands.send(Reserve(key))


def make_release(key: str) -> Release:
    return Release(key)


def make_unknown(key: str) -> Any:
    return {"key": key}["key"]


def names(component: type, handler: str) -> tuple[set[str], set[str], int]:
    """Return the names of commands and queries, and how many sends are unresolved."""
    sends = sends_for(component, handler)
    return {send.name for send in sends.commands}, {send.name for send in sends.queries}, len(sends.unresolved)


def sends_for(component: type, handler: str) -> Sends:
    definition = component_definition(component)
    return sends_of(definition, next(one for one in definition.handlers if one.name == handler))


class Shapes(Invoker):
    """One handler for each way to send; parameters of invocations are free, which keeps the cases short."""

    LATE: ClassVar[type[Release]] = Release
    declared: CommandGateway

    def __init__(self, kept: CommandGateway, queries: QueryGateway, helper: Helper) -> None:
        self.kept = kept
        self._queries: QueryGateway = queries
        self.helper = helper
        self.both = (kept, queries)

    @property
    def by_property(self) -> CommandGateway:
        return self.kept

    @invocation_handler
    async def of_the_invoker(self, event: Placed) -> None:
        await self.commands.send(Reserve(event.key))
        await self.queries.query(FindStock(event.key))

    @invocation_handler
    async def direct(self, event: Placed, commands: CommandGateway, queries: QueryGateway) -> None:
        stock = await queries.query(FindStock(event.key))
        if stock.amount:
            await commands.send_message(Reserve(event.key), metadata={"a": "b"})
        await commands.send(command=Charge(event.key))

    @invocation_handler
    async def local_variable(self, event: Placed, commands: CommandGateway) -> None:
        command = Reserve(event.key)
        await commands.send(command)

    @invocation_handler
    async def annotated_variable(self, event: Placed, commands: CommandGateway) -> None:
        command: Base = Reserve(event.key)
        await commands.send(command)

    @invocation_handler
    async def assigned_in_branches(self, event: Placed, commands: CommandGateway) -> None:
        command: Base | None = None
        if event.key:  # noqa: SIM108
            command = Reserve(event.key)
        else:
            command = Release(event.key)
        await commands.send(command)

    @invocation_handler
    async def conditional(self, event: Placed, commands: CommandGateway) -> None:
        await commands.send(Reserve(event.key) if event.key else Release(event.key))
        await (commands.send(Confirm("")) if event.key else commands.send(Charge("")))

    @invocation_handler
    async def walrus(self, event: Placed, commands: CommandGateway) -> None:
        if command := Reserve(event.key):
            await commands.send(command)

    @invocation_handler
    async def boolean(self, event: Placed, commands: CommandGateway) -> None:
        chosen: Base | None = None
        await commands.send(chosen or Release(event.key))

    @invocation_handler
    async def chosen_class(self, event: Placed, commands: CommandGateway) -> None:
        cls = Reserve if event.key else Release
        await commands.send(cls(event.key))

    @invocation_handler
    async def class_constant(self, event: Placed, commands: CommandGateway) -> None:
        await commands.send(self.LATE(event.key))

    @invocation_handler
    async def made_by_factory(self, event: Placed, commands: CommandGateway) -> None:
        await commands.send(Reserve.of(event.key))

    @invocation_handler
    async def changed_copy(self, event: Placed, commands: CommandGateway) -> None:
        await commands.send(msgspec.structs.replace(Reserve(event.key), key="other"))

    @invocation_handler
    async def module_constant(self, event: Placed, commands: CommandGateway) -> None:
        await commands.send(RESERVE)

    @invocation_handler
    async def made_by_function(self, event: Placed, commands: CommandGateway) -> None:
        await commands.send(make_release(event.key))

    @invocation_handler
    async def made_by_method(self, event: Placed, commands: CommandGateway) -> None:
        await commands.send(self._made(event.key))
        await commands.send(self._made_without_hint(event.key))

    def _made(self, key: str) -> Base:
        return Reserve(key)

    def _made_without_hint(self, key: str):  # type: ignore[no-untyped-def]
        if key:
            return Release(key)
        return Confirm(key)

    @invocation_handler
    async def loops(self, event: Placed, commands: CommandGateway) -> None:
        batch: list[Base] = [Reserve(event.key)]
        batch.append(Release(event.key))
        for command in batch:
            await commands.send(command)
        await asyncio.gather(*[commands.send(Charge(key)) for key in event.key])
        for confirm in reversed([Confirm(key) for key in event.key]):
            await commands.send(confirm)

    @invocation_handler
    async def unpacking(self, event: Placed, commands: CommandGateway) -> None:
        first, second = Reserve(event.key), Release(event.key)
        await commands.send(first)
        await commands.send(second)

    @invocation_handler
    async def nested_function(self, event: Placed, commands: CommandGateway) -> None:
        def make(key: str) -> Reserve:
            return Reserve(key)

        async def one(command: Release) -> None:
            await commands.send(command)

        await asyncio.gather(one(Release(event.key)), commands.send(make(event.key)))

    @invocation_handler
    async def task_group(self, event: Placed, commands: CommandGateway) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(commands.send(Reserve(event.key)))
            group.create_task(self._release(event.key, commands))

    @invocation_handler
    async def callables(self, event: Placed, commands: CommandGateway) -> None:
        send = commands.send
        await send(Reserve(event.key))
        await functools.partial(commands.send, Release(event.key))()

    @invocation_handler
    async def method_handed_on(self, event: Placed, run: Callable[..., Any], commands: CommandGateway) -> None:
        await run(self._release, event.key, commands)

    @invocation_handler
    async def helpers(self, event: Placed, commands: CommandGateway) -> None:
        await self._first(event, commands)

    async def _first(self, event: Placed, commands: CommandGateway) -> None:
        await self._second(event, gateway=commands)

    async def _second(self, event: Placed, gateway: CommandGateway) -> None:
        if event.key:
            await self._first(event, gateway)
        await self._release(event.key, gateway)

    async def _release(self, key: str, commands: CommandGateway) -> None:
        await commands.send(Release(key))

    @invocation_handler
    async def passed_to_helper(self, event: Placed, commands: CommandGateway) -> None:
        await self._send(Reserve(event.key), commands)
        await self._send(Release(event.key), commands)

    async def _send(self, command: Base, commands: CommandGateway) -> None:
        await commands.send(command)

    @invocation_handler
    async def private_helper(self, event: Placed, commands: CommandGateway) -> None:
        await self.__hidden(commands)

    async def __hidden(self, commands: CommandGateway) -> None:
        await commands.send(Confirm("K_1"))

    @invocation_handler
    async def circular_factories(self, event: Placed, commands: CommandGateway) -> None:
        await commands.send(self._one(event.key))
        await commands.send(self._other(event.key))

    def _one(self, key: str):  # type: ignore[no-untyped-def]
        return self._other(key) if key else Reserve(key)

    def _other(self, key: str):  # type: ignore[no-untyped-def]
        return self._one(key) if key else Release(key)

    @invocation_handler
    async def variable_of_itself(self, event: Placed, commands: CommandGateway) -> None:
        command: Base = Reserve(event.key)
        while event.key:
            command = msgspec.structs.replace(command, key="other")
            await commands.send(command)

    @invocation_handler
    async def static_helper(self, event: Placed, commands: CommandGateway) -> None:
        await self._static(event.key, commands)

    @staticmethod
    async def _static(key: str, commands: CommandGateway) -> None:
        await commands.send(Release(key))

    @invocation_handler
    async def module_function(self, event: Placed, commands: CommandGateway) -> None:
        await reserve(commands, event.key)

    @invocation_handler
    async def kept_gateways(self, event: Placed) -> None:
        await self.kept.send(Reserve(event.key))
        await self._queries.query(FindStock(event.key))
        await self.by_property.send(Release(event.key))
        await self.declared.send(Confirm(event.key))

    @invocation_handler
    async def renamed_gateway(self, event: Placed) -> None:
        gateway = self.kept
        await gateway.send(Reserve(event.key))

    @invocation_handler
    async def through_another_object(self, event: Placed) -> None:
        await self.helper.commands.send(Reserve(event.key))

    @invocation_handler
    async def imported_inside(self, event: Placed, commands: CommandGateway) -> None:
        import msgspec.structs as structs

        await commands.send(structs.replace(Reserve(event.key), key=""))

    @invocation_handler
    async def text_of_several_lines(self, event: Placed, commands: CommandGateway) -> None:
        text = """
first column
"""
        await commands.send(Reserve(text))

    @invocation_handler
    async def not_a_gateway(self, event: Placed, socket: Any) -> None:
        socket.send(event.key)
        socket.query("select 1")

    @invocation_handler
    async def sends_nothing(self, event: Placed) -> None:
        return None

    @invocation_handler
    async def unknown_payload(self, event: Placed, commands: CommandGateway) -> None:
        await commands.send(make_unknown(event.key))

    @invocation_handler
    async def abstract_payload(self, event: Placed, command: Base, commands: CommandGateway) -> None:
        await commands.send(command)

    @invocation_handler
    async def known_and_unknown(self, event: Placed, commands: CommandGateway) -> None:
        command = Reserve(event.key) if event.key else make_unknown(event.key)
        await commands.send(command)

    @invocation_handler
    async def handed_away(self, event: Placed, commands: CommandGateway) -> None:
        Helper(commands)

    @invocation_handler
    async def arguments_in_a_star(self, event: Placed, commands: CommandGateway) -> None:
        arguments: Any = [Reserve(event.key)]
        await commands.send(*arguments)


@pytest.mark.parametrize(
    ("method", "commands", "queries"),
    [
        ("of_the_invoker", {"Reserve"}, {"FindStock"}),
        ("direct", {"Reserve", "Charge"}, {"FindStock"}),
        ("local_variable", {"Reserve"}, set()),
        ("annotated_variable", {"Reserve"}, set()),
        ("assigned_in_branches", {"Reserve", "release-stock"}, set()),
        ("conditional", {"Reserve", "release-stock", "Confirm", "Charge"}, set()),
        ("walrus", {"Reserve"}, set()),
        ("boolean", {"release-stock"}, set()),
        ("chosen_class", {"Reserve", "release-stock"}, set()),
        ("class_constant", {"release-stock"}, set()),
        ("made_by_factory", {"Reserve"}, set()),
        ("changed_copy", {"Reserve"}, set()),
        ("module_constant", {"Reserve"}, set()),
        ("made_by_function", {"release-stock"}, set()),
        ("made_by_method", {"Reserve", "release-stock", "Confirm"}, set()),
        ("loops", {"Reserve", "release-stock", "Charge", "Confirm"}, set()),
        ("unpacking", {"Reserve", "release-stock"}, set()),
        ("nested_function", {"Reserve", "release-stock"}, set()),
        ("task_group", {"Reserve", "release-stock"}, set()),
        ("callables", {"Reserve", "release-stock"}, set()),
        ("method_handed_on", {"release-stock"}, set()),
        ("helpers", {"release-stock"}, set()),
        ("passed_to_helper", {"Reserve", "release-stock"}, set()),
        ("private_helper", {"Confirm"}, set()),
        ("circular_factories", {"Reserve", "release-stock"}, set()),
        ("variable_of_itself", {"Reserve"}, set()),
        ("static_helper", {"release-stock"}, set()),
        ("module_function", {"Reserve"}, set()),
        ("kept_gateways", {"Reserve", "release-stock", "Confirm"}, {"FindStock"}),
        ("renamed_gateway", {"Reserve"}, set()),
        ("through_another_object", {"Reserve"}, set()),
        ("imported_inside", {"Reserve"}, set()),
        ("text_of_several_lines", {"Reserve"}, set()),
        ("not_a_gateway", set(), set()),
        ("sends_nothing", set(), set()),
    ],
)
def test_sends_are_found(method: str, commands: set[str], queries: set[str]) -> None:
    assert names(Shapes, method) == (commands, queries, 0)


@pytest.mark.parametrize(
    ("method", "commands", "text"),
    [
        ("unknown_payload", set(), "commands.send(make_unknown(event.key))"),
        ("abstract_payload", set(), "commands.send(command)"),
        ("known_and_unknown", {"Reserve"}, "commands.send(command)"),
        ("handed_away", set(), "Helper(commands)"),
        ("arguments_in_a_star", set(), "commands.send(*arguments)"),
    ],
)
def test_what_cannot_be_resolved_is_reported(method: str, commands: set[str], text: str) -> None:
    sends = sends_for(Shapes, method)
    assert {send.name for send in sends.commands} == commands
    (unresolved,) = sends.unresolved
    lines, first = inspect.getsourcelines(getattr(Shapes, method))
    assert unresolved.name == text
    assert text in lines[unresolved.line - first]
    assert unresolved.file == __file__


def test_a_send_has_its_wire_name_file_and_line() -> None:
    lines, first = inspect.getsourcelines(Shapes._release)
    (send,) = sends_for(Shapes, "helpers").commands
    assert send == Send("release-stock", first + len(lines) - 1, __file__)


def test_the_same_place_counts_once_and_places_are_in_order() -> None:
    sends = sends_for(Shapes, "passed_to_helper").commands
    assert [send.name for send in sends] == ["Reserve", "release-stock"]
    assert len({send.line for send in sends}) == 1
    lines = [send.line for send in sends_for(Shapes, "loops").commands]
    assert lines == sorted(lines)


def test_the_source_is_read_once_for_each_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    first = sends_for(Shapes, "direct")
    monkeypatch.setattr(inspect, "getsourcelines", lambda _: pytest.fail("read again"))
    assert sends_for(Shapes, "direct") == first


class Parent(Observer, version=1):
    def __init__(self, commands: CommandGateway) -> None:
        self.gateway = commands

    @event_handler
    async def on_placed(self, event: Placed) -> None:
        await self._send(event.key)

    async def _send(self, key: str) -> None:
        await self.gateway.send(Reserve(key))


class Child(Parent):
    async def _send(self, key: str) -> None:
        await super()._send(key)
        await self.gateway.send(Release(key))


class Other(Parent):
    def __init__(self, commands: CommandGateway, other: int) -> None:
        super().__init__(commands)
        self.other = other

    async def _send(self, key: str) -> None:
        await self.gateway.send(Confirm(key))


@dataclass
class Fields(Service):
    gateway: CommandGateway

    @command_handler
    async def charge(self, command: Charge) -> None:
        await self.gateway.send(Reserve(command.key))


def test_helpers_and_constructors_are_those_of_the_class_itself() -> None:
    assert names(Parent, "on_placed") == ({"Reserve"}, set(), 0)
    assert names(Child, "on_placed") == ({"Reserve", "release-stock"}, set(), 0)
    assert names(Other, "on_placed") == ({"Confirm"}, set(), 0)
    assert names(Fields, "charge") == ({"Reserve"}, set(), 0)


def test_decorators_of_users_are_looked_through() -> None:
    def logged(function: F) -> F:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return cast(F, wrapper)

    class Decorated(Observer, version=1):
        @logged
        @event_handler
        async def on_placed(self, event: Placed, commands: CommandGateway) -> None:
            await self._reserve(commands)

        @logged
        async def _reserve(self, commands: CommandGateway) -> None:
            await commands.send(Reserve("K_1"))

    assert names(Decorated, "on_placed") == ({"Reserve"}, set(), 0)


def test_everything_may_be_local_to_a_function() -> None:
    class LocalCommand(ServiceCommand):
        pass

    class LocalQuery(Query[Stock]):
        pass

    class Local(Observer, version=1):
        def __init__(self, queries: QueryGateway) -> None:
            self.asks = queries

        @event_handler
        async def on_placed(self, event: Placed, commands: CommandGateway) -> None:
            await self._send(commands)
            await self.asks.query(self._query())

        async def _send(self, commands: CommandGateway, command: LocalCommand | None = None) -> None:
            await commands.send(command or LocalCommand())

        def _query(self) -> LocalQuery:
            return LocalQuery()

    assert names(Local, "on_placed") == ({"LocalCommand"}, {"LocalQuery"}, 0)


def test_missing_source_is_reported() -> None:
    source = """
class Sourceless(Observer, version=1):
    @event_handler
    async def on_placed(self, event: Placed, commands: CommandGateway) -> None:
        await commands.send(Reserve(event.key))
"""
    namespace = dict(globals())
    exec(compile(source, "<typed in>", "exec"), namespace)
    sends = sends_for(namespace["Sourceless"], "on_placed")
    assert (sends.commands, sends.queries) == ((), ())
    assert sends.unresolved == (Send("the source of Sourceless.on_placed is missing", 3, "<typed in>"),)


def test_changed_source_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "changing.py"
    file.write_text(
        "from evento import *\n\nclass E(DomainEvent): ...\n\nclass Changing(Observer, version=1):\n"
        "    @event_handler\n    def on(self, event: E, commands: CommandGateway) -> None: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("changing")
    try:
        file.write_text("# nothing is where it was\n" * 20)
        (unresolved,) = sends_for(module.Changing, "on").unresolved
        assert unresolved.name == "the source of Changing.on is missing"
    finally:
        del sys.modules["changing"]
