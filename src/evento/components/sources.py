"""Source code of functions as syntax trees, together with the names that it sees."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

from evento.components.hints import Site, site_kept_by
from evento.messages import Source

__all__ = ["MISSING", "Code", "Function", "Names", "code_of", "module_code", "names_of_class", "owner_of"]

MISSING: Any = object()
Function = ast.FunctionDef | ast.AsyncFunctionDef
_NOWHERE = Source("", 0)


@dataclass(frozen=True, slots=True)
class Names:
    """What a name in a piece of source stands for, as far as that is known without running it."""

    module_names: Mapping[str, Any]
    local_names: Mapping[str, Any]
    owner: type | None = None

    def find(self, name: str) -> Any:
        """Return what a name stands for; MISSING when that is not known."""
        for names in (self.local_names, self.module_names, vars(builtins)):
            if name in names:
                return names[name]
        return MISSING

    def hint(self, annotation: ast.expr | str | None) -> Any:
        """Return the type that an annotation means; MISSING when there is none, or it cannot be resolved."""
        if annotation is None:
            return MISSING
        if isinstance(annotation, ast.Constant):
            annotation = annotation.value if isinstance(annotation.value, str) else str(annotation.value)
        text = annotation if isinstance(annotation, str) else ast.unparse(annotation)
        try:
            return Site(_NOWHERE, self.module_names, self.local_names).resolve(text, self.owner or object)
        except Exception:  # whatever evaluating a user's annotation raises
            return MISSING


@dataclass(frozen=True, slots=True)
class Code:
    """A piece of source: the tree of a function (or of a module), its file, its names and the class it is in."""

    node: Function | ast.Module
    file: str
    names: Names
    owner: type | None = None
    has_self: bool = False


def code_of(function: FunctionType, owner: type | None = None) -> Code:
    """Return the source of a function, of a method when it has an owner; raise :class:`OSError` without source."""
    function = inspect.unwrap(function)
    lines, first = inspect.getsourcelines(function)
    # An indented method parses as it is under 'if True:'; dedenting it would break strings of several lines.
    indented = lines[0][:1].isspace()
    try:
        tree = ast.parse(("if True:\n" if indented else "") + "".join(lines))
    except SyntaxError as error:
        raise OSError(f"the source of {function.__qualname__} is not what was loaded: {error}") from error
    ast.increment_lineno(tree, first - (2 if indented else 1))
    node = next((node for node in ast.walk(tree) if isinstance(node, Function)), None)
    if node is None or node.name != function.__name__:
        raise OSError(f"the source of {function.__qualname__} is not what was loaded")
    return Code(node, function.__code__.co_filename, _names_of(function, owner), owner, owner is not None)


def module_code(module: ModuleType, *, mentioning: re.Pattern[str]) -> Code | None:
    """Return the source of a module, None when its text does not mention this (then it need not be parsed).

    :raises OSError: the source cannot be had.
    """
    try:
        text = inspect.getsource(module)
        if not mentioning.search(text):
            return None
        return Code(ast.parse(text), inspect.getsourcefile(module) or module.__name__, Names(vars(module), {}))
    except (SyntaxError, TypeError) as error:
        raise OSError(f"the source of {module.__name__} cannot be read: {error}") from error


def names_of_class(cls: type) -> Names:
    """Return the names that the annotations in the body of a class see."""
    site = site_kept_by(cls)
    if site is not None:
        return Names(site.module_names, site.local_names, cls)
    module = sys.modules.get(cls.__module__)
    return Names(vars(module) if module else {}, {}, cls)


def owner_of(function: FunctionType, cls: type) -> type:
    """Return the class, ``cls`` or one of its bases, in whose body a method is written."""
    place = (function.__module__, function.__qualname__.rpartition(".")[0])
    return next((base for base in cls.__mro__ if (base.__module__, base.__qualname__) == place), cls)


def _names_of(function: FunctionType, owner: type | None) -> Names:
    local_names: dict[str, Any] = {}
    site = None if owner is None else site_kept_by(owner)
    if site is not None and site.module_names is function.__globals__:
        local_names.update(site.local_names)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            local_names[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return Names(function.__globals__, local_names, owner)
