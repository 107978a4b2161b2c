"""The confinement check: commands and queries are sent by components, and say what they are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from evento.components.analysis import calls_in, calls_of
from evento.components.bases import Component
from evento.components.definition import ComponentDefinition
from evento.components.hints import show
from evento.components.reading import SENDING, Frame, Reader
from evento.components.sources import Code, Function, module_code

__all__ = ["ConfinementProblem", "confinement_problems"]


_SENDING = re.compile(rf"\.({'|'.join(SENDING)})\b")


@dataclass(frozen=True, slots=True, order=True)
class ConfinementProblem:
    """A place that breaks confinement, and what is wrong with it."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


def confinement_problems(modules: Iterable[ModuleType]) -> list[ConfinementProblem]:
    """Return the gateway calls outside components, and the sends whose payload is an abstract class.

    Read from the source of the modules; nothing is run. A module whose source is missing is reported itself.
    """
    problems: set[ConfinementProblem] = set()
    for module in modules:
        problems.update(_outside(module))
        problems.update(_abstract(module))
    return sorted(problems)


def _is_empty(module: ModuleType) -> bool:
    """Whether a module's file is there and holds nothing, which ``inspect`` reports like a missing source."""
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).is_file() and not Path(file).stat().st_size


def _outside(module: ModuleType) -> Iterator[ConfinementProblem]:
    try:
        code = module_code(module, mentioning=_SENDING)
    except OSError as error:
        if _is_empty(module):
            return
        yield ConfinementProblem(module.__name__, 0, f"cannot be checked: {error}")
        return
    if code is None:
        return
    for frame in _frames(code, code.node, None):
        for call in calls_in(frame):
            if not call.handed_on:
                what = f"{call.text} is outside components: move it into one, such as an Invoker"
                yield ConfinementProblem(call.file, call.line, what)


def _frames(code: Code, body: ast.AST, owner: type | None) -> Iterator[Frame]:
    """Yield the readings of all that is no component: what runs on import, functions, methods of other classes."""
    reader = Reader(owner)
    if isinstance(body, ast.Module):
        yield Frame(reader, code, {})
    for node in _definitions(body):
        if isinstance(node, Function):
            has_self = owner is not None and not _is_static(node)
            yield Frame(reader, replace(code, node=node, owner=owner, has_self=has_self), {})
            yield from _classes_in(code, node)
        elif not _is_component(code, node, owner):
            known = vars(owner).get(node.name) if owner else code.names.find(node.name)
            yield from _frames(code, node, known if isinstance(known, type) else type(node.name, (), {}))


def _definitions(body: ast.AST) -> Iterator[ast.ClassDef | Function]:
    """Yield the functions and classes of a body, also those under ``if`` or ``try``, not those inside them."""
    for node in ast.iter_child_nodes(body):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node
        else:
            yield from _definitions(node)


def _classes_in(code: Code, function: Function) -> Iterator[Frame]:
    for node in _definitions(function):
        if isinstance(node, Function):
            yield from _classes_in(code, node)
        elif not _is_component(code, node, None):
            yield from _frames(code, node, type(node.name, (), {}))


def _is_component(code: Code, node: ast.ClassDef, owner: type | None) -> bool:
    known = vars(owner).get(node.name) if owner else code.names.find(node.name)
    if isinstance(known, type) and issubclass(known, Component):
        return True
    return any(_is_role(code, base) for base in node.bases)


def _is_role(code: Code, base: ast.expr) -> bool:
    base = base.value if isinstance(base, ast.Subscript) else base
    named = Frame(Reader(), replace(code, node=ast.Module([], [])), {}).value(base)
    return any(isinstance(thing, type) and issubclass(thing, Component) for thing in named.objects)


def _is_static(node: Function) -> bool:
    return any(isinstance(one, ast.Name) and one.id == "staticmethod" for one in node.decorator_list)


def _abstract(module: ModuleType) -> Iterator[ConfinementProblem]:
    for component in _components(module):
        for handler in component.handlers:
            for call in calls_of(component, handler):
                for cls in sorted(call.payload.abstract, key=show):
                    yield ConfinementProblem(
                        call.file,
                        call.line,
                        f"{call.text} in {handler.id} sends {show(cls)}, which is abstract: name what it sends",
                    )


def _components(module: ModuleType) -> Iterator[ComponentDefinition]:
    pending: list[Any] = list(vars(module).values())
    while pending:
        thing = pending.pop()
        if isinstance(thing, type) and thing.__module__ == module.__name__:
            definition = vars(thing).get("__evento_component__")
            if isinstance(definition, ComponentDefinition):
                yield definition
            pending.extend(value for value in vars(thing).values() if isinstance(value, type) and value is not thing)
