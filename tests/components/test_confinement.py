"""The confinement check: where gateways are called, and what is sent."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from evento.components.confinement import ConfinementProblem, confinement_problems

PREAMBLE = """
from __future__ import annotations
from typing import Any
from evento import *

class Ask(Query[int]):
    key: str
class Base(DomainCommand, abstract=True):
    key: AggregateId
class Do(Base):
    pass
class Done(DomainEvent):
    key: str
"""
Load = Callable[[str], ModuleType]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    def load(source: str) -> ModuleType:
        (tmp_path / "confined.py").write_text(PREAMBLE + source)
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
        return importlib.import_module("confined")

    yield load
    sys.modules.pop("confined", None)


@pytest.mark.parametrize(
    ("source", "calls"),
    [
        (
            "async def f(commands: CommandGateway) -> None:\n    await commands.send(Do('K'))",
            ["commands.send(Do('K'))"],
        ),
        ("async def f(q: QueryGateway) -> None:\n    await q.query(Ask('K'))", ["q.query(Ask('K'))"]),
        ("async def f(bundle: Any) -> None:\n    await bundle.commands.send(x)", ["bundle.commands.send(x)"]),
        ("async def f(bundle: Any) -> None:\n    await bundle.queries.query(x)", ["bundle.queries.query(x)"]),
        ("async def f(anything: Any) -> None:\n    await anything.send(Do('K'))", ["anything.send(Do('K'))"]),
        (
            "class Helper:\n    def __init__(self, given: CommandGateway) -> None:\n        self.gateway = given\n"
            "    async def run(self) -> None:\n        await self.gateway.send_message(Do('K'))",
            ["self.gateway.send_message(Do('K'))"],
        ),
        (
            "class Outer:\n    class Inner:\n        @staticmethod\n        async def f(c: CommandGateway) -> None:\n"
            "            await c.send(Do('K'))",
            ["c.send(Do('K'))"],
        ),
        (
            "def f() -> None:\n    class Local:\n        async def g(self, c: CommandGateway) -> None:\n"
            "            await c.send(Do('K'))",
            ["c.send(Do('K'))"],
        ),
        (
            "def f(c: CommandGateway) -> Any:\n    async def inner() -> None:\n        await c.send(Do('K'))\n"
            "    return inner",
            ["c.send(Do('K'))"],
        ),
        ("if True:\n    async def f(c: CommandGateway) -> None:\n        await c.send(Do('K'))", ["c.send(Do('K'))"]),
        ("def f(bundle: Any) -> Any:\n    return Helper(bundle.commands)\nHelper: Any = print", []),
        ("def f(socket: Any) -> None:\n    socket.send('text')\n    socket.query('select 1')", []),
        ("class Helper:\n    commands: CommandGateway\n    def run(self) -> None: ...", []),
    ],
)
def test_calls_outside_components_are_reported(load: Load, source: str, calls: list[str]) -> None:
    module = load(source)

    problems = confinement_problems([module])

    assert [problem.what.partition(" is outside components")[0] for problem in problems] == calls
    for problem, call in zip(problems, calls, strict=True):
        assert problem.file == module.__file__
        assert call in (PREAMBLE + source).splitlines()[problem.line - 1]
        assert str(problem).startswith(f"{problem.file}:{problem.line}: {call}")


def test_module_level_code_is_outside_too(load: Load) -> None:
    module = load(
        "class Fake:\n    def send(self, c: Any) -> None: ...\ncommands: Any = Fake()\ncommands.send(Do('K'))"
    )
    (problem,) = confinement_problems([module])
    assert "commands.send(Do('K'))" in problem.what


COMPONENT = """
class Works(Observer, version=1):
    def __init__(self, kept: CommandGateway) -> None:
        self.kept = kept

    @event_handler
    async def on_done(self, event: Done, commands: CommandGateway) -> None:
        await commands.send(Do(event.key))
        await self._help(Do(event.key))

    async def _help(self, command: Base) -> None:
        await self.kept.send(command)

class Template(Observer, abstract=True):
    async def help(self, commands: CommandGateway) -> None:
        await commands.send(Do("K"))

def make() -> type:
    class Local(Works):
        async def more(self) -> None:
            await self.kept.send(Do("K"))
    return Local
"""


def test_components_may_call_gateways(load: Load) -> None:
    assert confinement_problems([load(COMPONENT)]) == []


def test_a_send_of_an_abstract_payload_is_reported(load: Load) -> None:
    source = """
class Vague(Observer, version=1):
    @event_handler
    async def on_done(self, event: Done, commands: CommandGateway) -> None:
        await self._help(commands, make(event))

    async def _help(self, commands: CommandGateway, command: Base) -> None:
        await commands.send(command)

def make(event: Any) -> Base:
    return event.command
"""
    module = load(source)
    (problem,) = confinement_problems([module])
    assert problem.what.startswith("commands.send(command) in Vague.on_done sends Base, which is abstract")
    assert (PREAMBLE + source).splitlines()[problem.line - 1].strip() == "await commands.send(command)"


def test_missing_source_is_reported() -> None:
    module = ModuleType("typed_in")
    (problem,) = confinement_problems([module])
    assert (problem.file, problem.line) == ("typed_in", 0)
    assert "cannot be checked" in problem.what


def test_problems_are_in_the_order_of_places() -> None:
    problems = [
        ConfinementProblem("b.py", 1, "x"),
        ConfinementProblem("a.py", 2, "x"),
        ConfinementProblem("a.py", 1, "x"),
    ]
    assert [(one.file, one.line) for one in sorted(problems)] == [("a.py", 1), ("a.py", 2), ("b.py", 1)]
