"""Inspection: from a component class to its frozen definition, once, when the class is made."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Mapping
from datetime import timedelta
from functools import cached_property
from types import FunctionType
from typing import Any, TypeVar, get_type_hints

from evento.components.decorators import HandlerMark, mark_of
from evento.components.definition import ComponentDefinition, HandlerDefinition, HandlerKind, Injectable, Role
from evento.components.hints import (
    ARGUMENTS,
    SITE,
    Site,
    fits,
    plain,
    show,
    site_of,
    substituted,
    type_arguments,
)
from evento.components.invocation import invoked_function, invoking
from evento.components.options import check_option
from evento.components.signatures import Method, read_signature
from evento.components.states import AggregateState, SagaState
from evento.errors import DefinitionError
from evento.messages.decodable import decoder_for

__all__ = ["component_definition", "define_component"]

_DEFINITION = "__evento_component__"
_OPTIONS = "__evento_options__"
_HINTS = "__evento_hints__"
_STATES: Mapping[Role, type] = {Role.AGGREGATE: AggregateState, Role.SAGA: SagaState}
_VERSIONED = frozenset({Role.PROJECTOR, Role.SAGA, Role.OBSERVER})
_KINDS = {
    Role.AGGREGATE: frozenset({HandlerKind.AGGREGATE_COMMAND, HandlerKind.EVENT_SOURCING}),
    Role.SERVICE: frozenset({HandlerKind.COMMAND}),
    Role.PROJECTOR: frozenset({HandlerKind.EVENT}),
    Role.PROJECTION: frozenset({HandlerKind.QUERY}),
    Role.SAGA: frozenset({HandlerKind.SAGA_EVENT}),
    Role.OBSERVER: frozenset({HandlerKind.EVENT}),
    Role.INVOKER: frozenset({HandlerKind.INVOCATION}),
}


def component_definition(cls: type) -> ComponentDefinition:
    """Return the definition of a component class; raise :class:`DefinitionError` for any other class."""
    if not isinstance(cls, type):
        raise DefinitionError(f"{cls!r:.200} is no class: give the bundle the component's class, not an instance")
    definition = cls.__dict__.get(_DEFINITION)
    if isinstance(definition, ComponentDefinition):
        return definition
    name = f"{cls.__module__}.{cls.__qualname__}"
    if hasattr(cls, _OPTIONS):
        raise DefinitionError(f"{name} is abstract: give the bundle the components derived from it", cls=name)
    raise DefinitionError(
        f"{name} is not a component: derive it from Aggregate, Service, Projector, Projection, Saga, Observer or "
        "Invoker",
        cls=name,
    )


def define_component(cls: type, *, abstract: bool, options: Mapping[str, Any], unknown: Mapping[str, Any]) -> None:
    """Check a class that derives from a role, and attach its :class:`ComponentDefinition`.

    ``options`` are the class keywords of the role, None where not given: then those of the base class count.
    """
    site = site_of(cls)
    role = _role_of(cls, site)
    if unknown:
        allowed = ", ".join([*options, "abstract"])
        raise site.error(cls, f"unknown class keyword {next(iter(unknown))!r}: {role.with_article} takes {allowed}")
    given = {**getattr(cls, _OPTIONS, {}), **{name: value for name, value in options.items() if value is not None}}
    for name, value in given.items():
        problem = check_option(name, value)
        if problem is not None:
            raise site.error(cls, problem)
    setattr(cls, _OPTIONS, given)
    arguments = type_arguments(cls, site)
    setattr(cls, ARGUMENTS, arguments)
    setattr(cls, SITE, site.without_values())
    methods = _methods(cls, role, site, arguments)
    if abstract:
        return
    if role in _VERSIONED and "version" not in given:
        raise site.error(cls, "version= is missing: it is part of where the consumer stands, so begin with version=1")
    if not methods:
        raise site.error(cls, f"no handlers: mark a method with {_decorators(role)}, or say abstract=True")
    state = _state_of(cls, role, site, arguments) if role in _STATES else None
    handlers = tuple(
        _handler(Method(cls.__qualname__, name, role, site, state, mark, function, hints))
        for name, (mark, function, hints) in methods.items()
    )
    _check_unique(cls, site, handlers)
    definition = ComponentDefinition(
        role=role,
        cls=cls,
        name=cls.__name__,
        source=site.source,
        handlers=handlers,
        description=inspect.cleandoc(cls.__dict__.get("__doc__") or ""),
        state=state,
        **given,
    )
    setattr(cls, _DEFINITION, definition)


def _role_of(cls: type, site: Site) -> Role:
    roles = list(
        dict.fromkeys(vars(base)["__evento_role__"] for base in cls.__mro__ if "__evento_role__" in vars(base))
    )
    if not roles:
        raise site.error(cls, "derive it from Aggregate, Service, Projector, Projection, Saga, Observer or Invoker")
    if len(roles) > 1:
        raise site.error(
            cls,
            f"is {roles[0].with_article} and {roles[1].with_article}: a component has one role, so make two classes",
        )
    role: Role = roles[0]
    return role


Marked = tuple[HandlerMark, FunctionType, dict[str, Any]]


def _methods(cls: type, role: Role, site: Site, arguments: Mapping[Any, Any]) -> dict[str, Marked]:
    """Return the marked methods by name, inherited ones first, with their hints resolved.

    A method that overrides a handler is that handler too, also without a decorator; ``name = None`` removes it.
    """
    marks: dict[str, HandlerMark] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            mark = mark_of(value)
            if mark is not None:
                marks[name] = mark
            elif name in marks and value is None:
                del marks[name]
            elif mark_of(_inside(value)) is not None:
                raise site.error(cls, f"{name} is a {type(value).__name__}: a handler is a plain method with self")
    found: dict[str, Marked] = {}
    resolved: dict[str, dict[str, Any]] = {}
    for name, mark in marks.items():
        function = inspect.getattr_static(cls, name)
        if not isinstance(function, FunctionType):
            raise site.error(cls, f"{name} overrides a handler, but is no method: use a method, or None to remove it")
        if mark.kind not in _KINDS[role]:
            raise site.error(
                cls, f"{name} has {mark.decorator}, which is not for {role.with_article}: use {_decorators(role)}"
            )
        if mark.kind is HandlerKind.INVOCATION and invoked_function(function) is None:
            function = invoking(function)
            setattr(cls, name, function)
        hints = resolved[name] = _hints(cls, name, function, site)
        found[name] = (mark, function, {key: substituted(hint, arguments) for key, hint in hints.items()})
    setattr(cls, _HINTS, resolved)
    return found


def _inside(value: object) -> object:
    """Return the function in a descriptor."""
    match value:
        case staticmethod() | classmethod():
            return value.__func__
        case property():
            return value.fget
        case cached_property():
            return value.func
    return None


def _hints(cls: type, name: str, function: FunctionType, site: Site) -> dict[str, Any]:
    # An inherited method is resolved where its class was made, for that is where its names are.
    for base in cls.__mro__[1:]:
        if name in vars(base):
            inherited = vars(base).get(_HINTS, {})
            if vars(base)[name] is function and name in inherited:
                hints: dict[str, Any] = inherited[name]
                return hints
    try:
        return site.hints_of(function, cls)
    except Exception as error:
        code = inspect.unwrap(function).__code__
        raise DefinitionError(
            f"{cls.__qualname__}.{name} ({code.co_filename}:{code.co_firstlineno}): a type hint cannot be resolved "
            f"({error}): import the type at run time (not under TYPE_CHECKING) and above this class",
            cls=cls.__qualname__,
            handler=name,
            file=code.co_filename,
            line=code.co_firstlineno,
        ) from error


def _state_of(cls: type, role: Role, site: Site, arguments: Mapping[Any, Any]) -> type:
    base = _STATES[role]
    variable = next(vars(one)["__parameters__"][0] for one in cls.__mro__ if "__evento_role__" in vars(one))
    hint = arguments.get(variable)
    if hint is None or isinstance(hint, TypeVar):
        raise site.error(cls, f"the state type is missing: write {cls.__name__}({role.value}[MyState])")
    hint = plain(hint)
    if not isinstance(hint, type) or not issubclass(hint, base):
        raise site.error(cls, f"the state type {show(hint)} is no {base.__name__}: derive it from {base.__name__}")
    try:
        _resolve_fields(hint, site, cls)
        decoder_for(hint)
    except Exception as error:
        raise site.error(
            cls, f"the state type {show(hint)} cannot be kept as JSON ({error}): use types that msgspec can decode"
        ) from error
    return hint


def _resolve_fields(state: type, site: Site, cls: type) -> None:
    """Give msgspec the types of string annotations that name local classes; it knows names of modules only."""
    for base in state.__mro__:
        own = inspect.get_annotations(base)
        if base.__module__ == cls.__module__ and any(isinstance(hint, str) for hint in own.values()):
            local_names = {**site.local_names, base.__name__: base}
            hints = get_type_hints(base, localns=local_names, include_extras=True)
            base.__annotations__.update({name: hints[name] for name in own})


def _handler(method: Method) -> HandlerDefinition:
    mark, function = method.mark, method.function
    is_async = inspect.iscoroutinefunction(inspect.unwrap(function))
    _check_mark(method, is_async=is_async)
    facts: dict[str, Any] = {
        "kind": mark.kind,
        "component": method.component.rpartition(".")[2],
        "name": method.name,
        "source": method.source,
        "init": mark.init,
        "retry": mark.retry,
        "retry_delay": mark.retry_delay,
        "executor": mark.executor,
        "association_property": mark.association_property,
        "tracked": getattr(function, "__evento_track__", False),
        "description": inspect.cleandoc(function.__doc__ or ""),
    }
    if mark.kind is HandlerKind.INVOCATION:
        _check_awaitable(method, is_async=is_async)
        return HandlerDefinition(function=invoked_function(function) or function, is_async=True, **facts)
    signature = read_signature(method)
    if mark.kind is HandlerKind.SAGA_EVENT:
        _check_association(method, signature.payload)
    for parameter in signature.parameters:
        if parameter.injectable in {Injectable.CONNECTION, Injectable.SESSION} and not is_async:
            raise method.error(f"{parameter.name} needs awaiting: make the handler 'async def'")
    return HandlerDefinition(
        function=function,
        is_async=is_async,
        payload=signature.payload,
        parameters=signature.parameters,
        results=signature.results,
        returns_none=signature.returns_none,
        **facts,
    )


def _check_mark(method: Method, *, is_async: bool) -> None:
    mark = method.mark
    if not isinstance(mark.retry, int) or isinstance(mark.retry, bool) or mark.retry < -1:
        raise method.error(f"retry={mark.retry!r} must be a number of attempts from 0, or -1 for ever")
    if not isinstance(mark.retry_delay, timedelta) or mark.retry_delay < timedelta(0):
        raise method.error(f"retry_delay={mark.retry_delay!r} must be a timedelta from 0")
    if mark.executor is not None and (not isinstance(mark.executor, str) or not mark.executor):
        raise method.error(f"executor={mark.executor!r} must be 'threads' or the name of an executor of the bundle")
    if mark.executor is not None and is_async and mark.kind is not HandlerKind.EVENT:
        raise method.error("executor= moves a plain 'def' to threads: remove it, or remove 'async'")
    if mark.kind is HandlerKind.EVENT_SOURCING and is_async:
        raise method.error("folding only computes: make it a plain 'def'")


def _check_awaitable(method: Method, *, is_async: bool) -> None:
    hint = plain(method.hints.get("return", Any))
    if not is_async and not fits(hint, Awaitable):
        raise method.error(f"returns {show(hint)}: make it 'async def', or return an awaitable")


def _check_association(method: Method, payload: type) -> None:
    association = method.mark.association_property
    if not association:
        raise method.error(
            "association_property= is missing: name the event's field that finds the saga, such as "
            "@saga_event_handler(association_property='order_id')"
        )
    fields = payload.__struct_fields__  # type: ignore[attr-defined]
    if association not in fields and not isinstance(getattr(payload, association, None), property):
        raise method.error(
            f"association_property={association!r} is no field of {payload.__name__}: use one of {', '.join(fields)}"
        )


def _check_unique(cls: type, site: Site, handlers: tuple[HandlerDefinition, ...]) -> None:
    seen: dict[tuple[HandlerKind, str], HandlerDefinition] = {}
    for handler in handlers:
        key = (handler.kind, handler.payload_name)
        other = seen.setdefault(key, handler)
        if other is not handler:
            raise site.error(
                cls,
                f"{other.name} ({other.source}) and {handler.name} ({handler.source}) both handle "
                f"{handler.payload_name}: keep one (a method that replaces an inherited one must have its name)",
            )


def _decorators(role: Role) -> str:
    return " or ".join(sorted(HandlerMark(kind).decorator for kind in _KINDS[role]))
