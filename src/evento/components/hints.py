"""Type hints of components: resolved where the class is made, with the type arguments of generic bases filled in."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FrameType, FunctionType, ModuleType, UnionType
from typing import Annotated, Any, ForwardRef, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

from evento.errors import DefinitionError
from evento.messages import PayloadDefinition, Source
from evento.messages.definition import names_around

__all__ = [
    "ARGUMENTS",
    "NONE",
    "SITE",
    "Site",
    "fits",
    "members",
    "payload_definition",
    "payloads_in",
    "plain",
    "show",
    "site_kept_by",
    "site_of",
    "substituted",
    "type_arguments",
]

NONE = type(None)
ARGUMENTS = "__evento_arguments__"
SITE = "__evento_site__"


@dataclass(frozen=True, slots=True)
class Site:
    """Where a class is made: its place in the source, and the names of the functions around it."""

    source: Source
    module_names: Mapping[str, Any]
    local_names: Mapping[str, Any]

    def error(self, cls: type, problem: str) -> DefinitionError:
        """Return an error that names the class and its place."""
        return DefinitionError(
            f"{cls.__qualname__} ({self.source}): {problem}",
            cls=cls.__qualname__,
            file=self.source.file,
            line=self.source.line,
        )

    def hints_of(self, function: FunctionType, cls: type) -> dict[str, Any]:
        """Resolve the hints of a method; they may name local classes, nested classes and the class being made."""
        names = self._names(inspect.unwrap(function).__globals__, cls)
        return get_type_hints(function, localns=names, include_extras=True)

    def resolve(self, hint: Any, cls: type) -> Any:
        """Resolve a hint that may be a string."""
        text = hint.__forward_arg__ if isinstance(hint, ForwardRef) else hint
        if not isinstance(text, str):
            return hint
        module_names = dict(self.module_names)
        holder = type("_Holder", (), {"__annotations__": {"value": text}})
        return get_type_hints(holder, globalns=module_names, localns=self._names(self.module_names, cls))["value"]

    def without_values(self) -> Site:
        """Return a site to keep: local names that are no types, modules or functions would keep their values alive."""
        kept = {name: value for name, value in self.local_names.items() if _is_static(value)}
        return Site(self.source, self.module_names, kept)

    def _names(self, module_names: Mapping[str, Any], cls: type) -> dict[str, Any]:
        names: dict[str, Any] = {}
        # Local names are those of this module: a mixin from elsewhere must not see them.
        if module_names is self.module_names:
            names.update(self.local_names)
        for base in reversed(cls.__mro__):
            names.update({name: value for name, value in vars(base).items() if isinstance(value, type)})
        names[cls.__name__] = cls
        return names


def _is_static(value: object) -> bool:
    return isinstance(value, (type, ModuleType, FunctionType, TypeVar)) or get_origin(value) is not None


def site_of(cls: type) -> Site:
    """Return where ``cls`` is being made: the innermost frame of its module that executes a class statement."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and (
        frame.f_globals.get("__name__") != cls.__module__ or frame.f_code.co_name in {"__init_subclass__", "__new__"}
    ):
        frame = frame.f_back
    if frame is None:
        module = sys.modules.get(cls.__module__)
        return Site(Source(getattr(module, "__file__", None) or cls.__module__, 0), vars(module) if module else {}, {})
    source = Source(frame.f_code.co_filename, frame.f_lineno)
    return Site(source, frame.f_globals, names_around(frame))


def site_kept_by(cls: type) -> Site | None:
    """Return where a component class was made; None for other classes."""
    site = cls.__dict__.get(SITE)
    return site if isinstance(site, Site) else None


def type_arguments(cls: type, site: Site) -> dict[Any, Any]:
    """Return what stands for each type variable of the bases of ``cls``, resolved through generic bases between.

    What a class leaves open is itself a type variable. A component keeps the result as ``__evento_arguments__``, for
    strings in it can be resolved only where it is made.
    """
    arguments: dict[Any, Any] = {}
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        origin = get_origin(base) or base
        if origin is Generic or not isinstance(origin, type):
            continue
        inner = origin.__dict__.get(ARGUMENTS)
        if inner is None:
            inner = {} if origin is object else type_arguments(origin, site)
        own = dict(zip(getattr(origin, "__parameters__", ()), get_args(base), strict=False))
        own = {variable: site.resolve(argument, cls) for variable, argument in own.items()}
        arguments.update({variable: substituted(hint, own) for variable, hint in inner.items()})
        arguments.update(own)
    return arguments


def substituted(hint: Any, arguments: Mapping[Any, Any]) -> Any:
    """Return a hint with its type variables replaced, as far as ``arguments`` knows them."""
    if isinstance(hint, TypeVar):
        return arguments.get(hint, hint)
    variables = getattr(hint, "__parameters__", ())
    if isinstance(hint, type) and get_origin(hint) is None:
        return hint
    if not variables:
        return hint
    return hint[tuple(arguments.get(variable, variable) for variable in variables)]


def plain(hint: Any) -> Any:
    """Return a hint without Annotated and type aliases."""
    while True:
        if get_origin(hint) is Annotated:
            hint = get_args(hint)[0]
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        else:
            return NONE if hint is None else hint


def members(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, nested ones too; of any other hint the hint alone."""
    hint = plain(hint)
    if get_origin(hint) not in {Union, UnionType}:
        return (hint,)
    return tuple(dict.fromkeys(member for argument in get_args(hint) for member in members(argument)))


def payload_definition(hint: Any) -> PayloadDefinition | None:
    """Return the definition of a payload class; None for any other hint."""
    definition = hint.__dict__.get("__evento__") if isinstance(hint, type) else None
    return definition if isinstance(definition, PayloadDefinition) else None


def payloads_in(hint: Any) -> Iterator[type]:
    """Yield the payload classes that a hint mentions: ``list[OrderView] | None`` gives ``OrderView``."""
    hint = plain(hint)
    if payload_definition(hint) is not None:
        yield hint
    for argument in get_args(hint):
        yield from payloads_in(argument)


def fits(given: Any, declared: Any) -> bool:
    """Whether values of the hint ``given`` are values of ``declared``; True where hints alone do not tell."""
    given, declared = plain(given), plain(declared)
    if given == declared or Any in (given, declared) or isinstance(given, TypeVar) or isinstance(declared, TypeVar):
        return True
    given_members, declared_members = members(given), members(declared)
    if len(given_members) > 1:
        return all(fits(member, declared) for member in given_members)
    if len(declared_members) > 1:
        return any(fits(given, member) for member in declared_members)
    given_type, declared_type = get_origin(given) or given, get_origin(declared) or declared
    if not isinstance(given_type, type) or not isinstance(declared_type, type):
        return True
    try:
        if not issubclass(given_type, declared_type):
            return False
    except TypeError:  # a protocol that does not tell at run time
        return True
    pairs = list(zip(get_args(given), get_args(declared), strict=False))
    return len(get_args(given)) != len(get_args(declared)) or all(fits(one, other) for one, other in pairs)


def show(hint: Any) -> str:
    """Return a hint as a user would write it."""
    if hint is NONE:
        return "None"
    parts = members(hint)
    if len(parts) > 1:
        return " | ".join(show(part) for part in parts)
    if isinstance(hint, type) and not get_args(hint):
        return hint.__qualname__.rpartition("<locals>.")[2]
    return str(hint).replace("typing.", "")
