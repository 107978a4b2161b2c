"""Reading functions: what their variables, expressions and results may be. Nothing is run.

The reading knows no order of statements: a variable is whatever is assigned to it anywhere in its function.
"""

from __future__ import annotations

import ast
import copy
import inspect
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import cached_property, partial
from types import FunctionType, ModuleType
from typing import Any

import msgspec

from evento.components.sources import MISSING, Code, Function, code_of, names_of_class, owner_of
from evento.components.values import (
    NOTHING,
    UNKNOWN,
    Factory,
    Value,
    is_payload,
    join,
    value_of_hint,
    value_of_object,
)

__all__ = ["SENDING", "Frame", "Reader"]

SENDING: Mapping[str, str] = {"send": "commands", "send_message": "commands", "query": "queries"}
_SAME: frozenset[Any] = frozenset({msgspec.structs.replace, copy.copy, copy.deepcopy})
_COLLECTING: frozenset[Any] = frozenset({list, tuple, set, frozenset, sorted, reversed, iter})
_ADDING = frozenset({"append", "appendleft", "add", "insert"})
Arguments = Mapping[str, Value]


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a function with those of the functions in it; of a module only what runs on import."""
    stop: tuple[type[ast.AST], ...] = (ast.ClassDef,)
    if isinstance(node, ast.Module):
        stop = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    pending = list(ast.iter_child_nodes(node))
    while pending:
        current = pending.pop()
        yield current
        if not isinstance(current, stop):
            pending.extend(ast.iter_child_nodes(current))


class Reader:
    """Reads the functions that code of one class (None: of no class) calls; each one once for the same arguments."""

    def __init__(self, cls: type | None = None) -> None:
        self.cls = cls
        self._frames: dict[tuple[FunctionType, frozenset[tuple[str, Value]]], Frame] = {}
        self._known: dict[Hashable, Value] = {}
        self._tentative: dict[Hashable, tuple[Value, int]] = {}
        self._open: dict[Hashable, int] = {}
        self._reached = 0  # the outermost open thing that the current one depends on, by depth

    def once(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """Return the value of something that may depend on itself: there it counts as nothing.

        Values are kept, but in a circle only that of the thing with which it was entered: the others lack what that
        one was still to give, so they are kept only until it is known.
        """
        if key in self._known:
            return self._known[key]
        if key in self._tentative or key in self._open:
            value, reached = self._tentative.get(key) or (NOTHING, self._open[key])
            self._reached = min(self._reached, reached)
            return value
        depth = self._open[key] = len(self._open)
        outer, self._reached = self._reached, depth
        try:
            value = compute()
        finally:
            del self._open[key]
            reached, self._reached = self._reached, min(outer, self._reached)
        if reached == depth:
            self._known[key] = value
            self._tentative.clear()
            self._reached = outer
        else:
            self._tentative[key] = (value, reached)
        return value

    def method(self, function: FunctionType, arguments: Arguments | None = None) -> Frame:
        """Return the reading of a method of the class; raise :class:`OSError` without source."""
        return self._frame(function, arguments or {}, owner_of(function, self.cls) if self.cls else None)

    def function(self, function: FunctionType, arguments: Arguments) -> Frame:
        """Return the reading of a function that is no method; raise :class:`OSError` without source."""
        return self._frame(function, arguments, None)

    def _frame(self, function: FunctionType, arguments: Arguments, owner: type | None) -> Frame:
        key = (function, frozenset(arguments.items()))
        if key not in self._frames:
            self._frames[key] = Frame(self, code_of(function, owner), arguments)
        return self._frames[key]

    def attribute(self, name: str, owner: type | None) -> Value:
        """Return what ``self.name`` may be, written in the body of ``owner``."""
        if self.cls is None:
            return UNKNOWN
        if owner is not None and name.startswith("__") and not name.endswith("__"):
            name = f"_{owner.__name__.lstrip('_')}{name}"
        return self.once(("attribute", name), partial(self._attribute, self.cls, name))

    def _attribute(self, cls: type, name: str) -> Value:
        static = inspect.getattr_static(cls, name, MISSING)
        if static is MISSING or inspect.ismemberdescriptor(static):
            return self._instance_attribute(cls, name)
        return self._class_attribute(static)

    def inherited(self, name: str, owner: type | None) -> Value:
        """Return what ``super().name`` is, written in the body of ``owner``."""
        mro = self.cls.__mro__ if self.cls else ()
        later = mro[mro.index(owner) + 1 :] if owner in mro else ()
        static = next((vars(base)[name] for base in later if name in vars(base)), MISSING)
        return UNKNOWN if static is MISSING else self._class_attribute(static)

    def _class_attribute(self, static: Any) -> Value:
        getter = static.fget if isinstance(static, property) else getattr(static, "func", None)
        if isinstance(static, (property, cached_property)):
            return self.result(self.method, getter, {})
        if isinstance(static, staticmethod):
            return value_of_object(static.__func__)
        if isinstance(static, FunctionType):
            return Value(methods=frozenset({inspect.unwrap(static)}))
        return value_of_object(static)

    def _instance_attribute(self, cls: type, name: str) -> Value:
        """Read class annotations and the constructors."""
        found = NOTHING
        for base in cls.__mro__:
            annotations = inspect.get_annotations(base)
            if name in annotations:
                hint = annotations[name]
                found |= value_of_hint(names_of_class(base).hint(hint) if isinstance(hint, str) else hint)
            constructor = vars(base).get("__init__")
            if isinstance(constructor, FunctionType):
                try:
                    found |= self.method(constructor).kept(name)
                except OSError:  # such as one that dataclasses have made
                    continue
        return UNKNOWN if found == NOTHING else found

    def result(self, read: Callable[[FunctionType, Arguments], Frame], function: Any, arguments: Arguments) -> Value:
        """Return what calling (and awaiting) a function may give."""
        if not isinstance(function, FunctionType):
            return UNKNOWN
        try:
            return read(function, arguments).result
        except OSError:  # no source
            return UNKNOWN


class Frame:
    """One function with its arguments: what its expressions may be."""

    def __init__(self, reader: Reader, code: Code, arguments: Arguments) -> None:
        self.reader = reader
        self.code = code
        self.nodes = tuple(walk(code.node))
        self._instance: str | None = None
        self._bindings: dict[str, list[Callable[[], Value]]] = {}
        self._declared: dict[Function, Value] = {}
        self._functions = {node.name: node for node in self.nodes if isinstance(node, Function)}
        if not isinstance(code.node, ast.Module):
            self._bind_parameters(code.node, arguments, has_self=code.has_self)
        for node in self.nodes:
            self._bind(node)

    # -- variables

    def _bind_parameters(self, function: Function | ast.Lambda, given: Arguments, *, has_self: bool = False) -> None:
        parameters = [*function.args.posonlyargs, *function.args.args]
        if has_self and parameters:
            self._instance = parameters.pop(0).arg
        for parameter in [*parameters, *function.args.kwonlyargs]:
            declared = value_of_hint(self.code.names.hint(parameter.annotation))
            passed = given.get(parameter.arg, NOTHING)
            self._add(
                parameter.arg, passed if passed.settled else declared if declared != UNKNOWN else passed | UNKNOWN
            )
        for rest in (function.args.vararg, function.args.kwarg):
            if rest is not None:
                self._add(rest.arg, value_of_hint(self.code.names.hint(rest.annotation)).collected)

    def _add(self, name: str, value: Value | Callable[[], Value]) -> None:
        self._bindings.setdefault(name, []).append((lambda: value) if isinstance(value, Value) else value)

    def _bind(self, node: ast.AST) -> None:
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._assign(target, value)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=None):
                self._add(name, value_of_hint(self.code.names.hint(annotation)))
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, value)
            case ast.NamedExpr(target=target, value=value) | ast.AugAssign(target=target, value=value):
                self._assign(target, value)
            case (
                ast.For(target=target, iter=iterated)
                | ast.AsyncFor(target=target, iter=iterated)
                | ast.comprehension(target=target, iter=iterated)
            ):
                self._assign_each(target, iterated)
            case ast.withitem(optional_vars=ast.expr() as target):
                self._assign_unknown(target)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                self._add(name, UNKNOWN)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                self._bind_parameters(node, {})
            case ast.Import() | ast.ImportFrom():
                self._import(node)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attr), args=[*_, added]) if attr in _ADDING:
                self._add(name, lambda: self.value(added).collected)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        match target, value:
            case ast.Name(id=name), _:
                self._add(name, partial(self.value, value))
            case (
                (ast.Tuple(elts=targets) | ast.List(elts=targets)),
                (ast.Tuple(elts=values) | ast.List(elts=values)),
            ) if len(targets) == len(values):
                for one, other in zip(targets, values, strict=True):
                    self._assign(one, other)
            case ((ast.Tuple(elts=targets) | ast.List(elts=targets)), _):
                for one in targets:
                    self._assign_each(one, value)
            case ast.Attribute(value=ast.Name(id=instance), attr=attr), _ if instance == self._instance:
                self._add(f"{instance}.{attr}", partial(self.value, value))

    def _assign_each(self, target: ast.expr, iterated: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self._add(target.id, lambda: self.value(iterated).element)
        else:
            self._assign_unknown(target)

    def _assign_unknown(self, target: ast.expr) -> None:
        for node in ast.walk(target):
            if isinstance(node, ast.Name):
                self._add(node.id, UNKNOWN)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            if isinstance(node, ast.Import):
                thing = sys.modules.get(alias.name if alias.asname else name, MISSING)
            else:
                package = self.code.names.module_names.get("__package__") or ""
                parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                module = ".".join([*parents, *([node.module] if node.module else [])])
                thing = getattr(sys.modules.get(module), alias.name, MISSING)
            self._add(name, UNKNOWN if thing is MISSING else value_of_object(thing))

    def kept(self, name: str) -> Value:
        """Return what this method keeps in ``self.name``."""
        return join(binding() for binding in self._bindings.get(f"{self._instance}.{name}", ()))

    # -- expressions

    @property
    def result(self) -> Value:
        """What the function returns: by its return hint, or by its return statements."""
        node = self.code.node
        return NOTHING if isinstance(node, ast.Module) else self._returned(node)

    def _returned(self, function: Function) -> Value:
        declared = self._declared.get(function)
        if declared is None:
            declared = self._declared[function] = value_of_hint(self.code.names.hint(function.returns))
        if declared.settled:
            return declared
        found = self.reader.once((self, function), lambda: join(map(self.value, _returns(function))))
        return found if found.settled or declared == UNKNOWN else declared

    def value(self, node: ast.expr) -> Value:
        """Return what an expression may be."""
        match node:
            case ast.Name(id=name):
                return self._name(name)
            case ast.Attribute():
                return self._attribute(node)
            case ast.Call():
                return self._call(node)
            case ast.Await(value=inner) | ast.NamedExpr(value=inner):
                return self.value(inner)
            case ast.IfExp(body=body, orelse=orelse):
                return self.value(body) | self.value(orelse)
            case ast.BoolOp(values=values):
                return join(self.value(one) for one in values)
            case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
                return join(map(self._collected, elements))
            case ast.ListComp(elt=element) | ast.SetComp(elt=element) | ast.GeneratorExp(elt=element):
                return self.value(element).collected
            case ast.Dict(values=values):
                return join(self.value(one).collected for one in values)
            case ast.Subscript(value=inner):
                base = self.value(inner)
                return base if base.objects else base.element
            case ast.Constant(value=None):
                return NOTHING
        return UNKNOWN

    def _collected(self, element: ast.expr) -> Value:
        return self.value(element.value) if isinstance(element, ast.Starred) else self.value(element).collected

    def _name(self, name: str) -> Value:
        if name == self._instance:
            return Value(instance=True)
        if name in self._functions and name not in self._bindings:
            return NOTHING
        if name not in self._bindings:
            thing = self.code.names.find(name)
            return UNKNOWN if thing is MISSING else value_of_object(thing)
        return self.reader.once((self, name), lambda: join(binding() for binding in self._bindings[name]))

    def _attribute(self, node: ast.Attribute) -> Value:
        if isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name) and node.value.func.id == "super":
            return self.reader.inherited(node.attr, self.code.owner)
        base = self.value(node.value)
        found = NOTHING
        if base.instance:
            found |= self.reader.attribute(node.attr, self.code.owner)
        found |= Value(senders=base.gateways & {SENDING.get(node.attr, "")})
        found |= join(_static_attribute(thing, node.attr) for thing in base.objects)
        if found not in {NOTHING, UNKNOWN}:
            return found
        if node.attr in {"commands", "queries"} and not base.objects:
            # Of a bundle, say: its type is not known, but these two names are.
            return Value(gateways=frozenset({node.attr}))
        return NOTHING if base == NOTHING else UNKNOWN

    def _call(self, node: ast.Call) -> Value:
        if isinstance(node.func, ast.Name) and node.func.id in self._functions:
            return self._returned(self._functions[node.func.id])
        function = self.value(node.func)
        found = UNKNOWN if function.opaque else NOTHING
        for thing in function.objects:
            found |= self._made_by(thing, node)
        for method in function.methods:
            given = self.arguments(node.args, node.keywords, method, skip=1)
            found |= self.reader.result(self.reader.method, method, given)
        return found

    def _made_by(self, thing: Any, node: ast.Call) -> Value:
        """Return what calling a class or function gives."""
        if is_payload(thing):
            return Value(payloads=frozenset({thing}))
        if isinstance(thing, Factory):
            made = self.reader.result(self.reader.function, thing.function, {})
            return made if made.settled else Value(payloads=frozenset({thing.payload}))
        if node.args and (thing in _SAME or thing in _COLLECTING):
            return self.value(node.args[0])
        if isinstance(thing, FunctionType) and _is_followed(thing, self.code):
            given = self.arguments(node.args, node.keywords, thing)
            return self.reader.result(self.reader.function, thing, given)
        return UNKNOWN

    def arguments(
        self, args: list[ast.expr], keywords: list[ast.keyword], function: FunctionType, *, skip: int = 0
    ) -> dict[str, Value]:
        """Return what a call passes for the parameters of a function; ``skip`` is 1 for a method, without self."""
        code = function.__code__
        names = code.co_varnames[: code.co_argcount][skip:]
        positional = args if not any(isinstance(one, ast.Starred) for one in args) else []
        given = {name: self.value(one) for name, one in zip(names, positional, strict=False)}
        given.update({keyword.arg: self.value(keyword.value) for keyword in keywords if keyword.arg})
        return given


def _returns(function: Function) -> Iterator[ast.expr]:
    """Yield what a function returns, without the functions in it."""
    pending: list[ast.AST] = [*function.body]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Return) and node.value is not None:
            yield node.value
        elif not isinstance(node, (ast.expr, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            pending.extend(ast.iter_child_nodes(node))


def _is_followed(function: FunctionType, code: Code) -> bool:
    """Whether a function is read as well: one of the same distribution, or at least of no library."""
    package = str(function.__module__).partition(".")[0]
    if package == str(code.names.module_names.get("__name__")).partition(".")[0]:
        return True
    return package not in sys.stdlib_module_names and "site-packages" not in function.__code__.co_filename


def _static_attribute(thing: Any, name: str) -> Value:
    if isinstance(thing, ModuleType):
        found = vars(thing).get(name, MISSING)
        return UNKNOWN if found is MISSING else value_of_object(found)
    if not isinstance(thing, type):
        return UNKNOWN
    static = inspect.getattr_static(thing, name, MISSING)
    if is_payload(thing) and isinstance(static, (classmethod, staticmethod)):
        function = static.__func__
        return Value(objects=frozenset({Factory(thing, function)})) if isinstance(function, FunctionType) else UNKNOWN
    return UNKNOWN if static is MISSING else value_of_object(static)
