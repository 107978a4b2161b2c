"""Making components: each constructor parameter is resolved by its type."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, TypeAlias, get_type_hints

from evento.components import ComponentDefinition
from evento.components.hints import NONE, members, site_kept_by
from evento.errors import DefinitionError

__all__ = ["Injector", "make_component"]

Injector: TypeAlias = Callable[[type], object] | Mapping[type[Any], object] | None
"""A callable from a type to an object, or a mapping of types to objects."""


def make_component(component: ComponentDefinition, injector: Injector, own: Mapping[type, object]) -> Any:
    """Make a component; ``own`` are the objects that the bundle itself provides, such as its gateways.

    :raises DefinitionError: a parameter has no type hint, or nothing provides its type and it has no default.
    """
    cls = component.cls
    constructor = _constructor(cls)
    if constructor is None:
        return cls()
    site = site_kept_by(cls)
    try:
        hints = get_type_hints(constructor) if site is None else site.hints_of(constructor, cls)
    except NameError as error:
        raise component.error(f"a type hint of the constructor cannot be resolved: {error}") from error
    arguments: dict[str, object] = {}
    for name, parameter in list(inspect.signature(constructor).parameters.items())[1:]:
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            continue
        optional = parameter.default is not parameter.empty
        hint = _without_none(hints.get(name))
        if hint is None and not optional:
            raise component.error(f"the constructor's parameter {name!r} has no type hint, so nothing can be injected")
        value = own.get(hint) if isinstance(hint, type) and hint in own else _provided(injector, hint)
        if value is not None:
            arguments[name] = value
        elif not optional:
            raise component.error(
                f"nothing provides the constructor's parameter {name!r} of type {getattr(hint, '__name__', hint)}: "
                "give the bundle an injector that knows the type, or the parameter a default"
            )
    return cls(**arguments)


def _constructor(cls: type) -> FunctionType | None:
    """Return the constructor that a class or one of its bases has; None when it is that of ``object``."""
    found = next(vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base))
    return found if isinstance(found, FunctionType) else None


def _without_none(hint: Any) -> Any:
    """Return ``T`` for ``T | None`` and for ``Annotated[T, ...]``; any other hint as it is."""
    found = [member for member in members(hint) if member is not NONE]
    return found[0] if len(found) == 1 else hint if found else None


def _provided(injector: Injector, hint: Any) -> object:
    if injector is None or hint is None:
        return None
    if isinstance(injector, Mapping):
        return injector.get(hint)
    if not callable(injector):
        raise DefinitionError(f"injector must be a callable or a mapping of types, not {type(injector).__name__}")
    try:
        return injector(hint)
    except (KeyError, LookupError):
        return None
