"""What a payload class is: its wire name, kind and fields, found and checked when the class is made."""

from __future__ import annotations

import enum
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec

from evento.errors import DefinitionError

__all__ = ["PayloadDefinition", "PayloadKind", "Source", "define", "definition_of", "result_type_of"]

_FRAMEWORK = "evento.messages.payloads"
_STRUCT_KEYWORDS = frozenset(
    [
        "tag",
        "tag_field",
        "rename",
        "omit_defaults",
        "forbid_unknown_fields",
        "frozen",
        "eq",
        "order",
        "kw_only",
        "repr_omit_defaults",
        "array_like",
        "gc",
        "weakref",
        "dict",
        "cache_hash",
    ]
)
C = TypeVar("C", bound=type)


class PayloadKind(enum.Enum):
    """The kinds of payload that travel."""

    DOMAIN_COMMAND = "DomainCommand"
    SERVICE_COMMAND = "ServiceCommand"
    DOMAIN_EVENT = "DomainEvent"
    SERVICE_EVENT = "ServiceEvent"
    QUERY = "Query"
    VIEW = "View"


@dataclass(frozen=True, slots=True)
class Source:
    """A place in a source file; ``line`` is 0 where it is unknown."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class PayloadDefinition:
    """The frozen definition of a payload class; ``kind`` is None for bases that are no payload by themselves."""

    cls: type
    name: str
    kind: PayloadKind | None
    version: int
    domain: str
    abstract: bool
    description: str
    source: Source
    aggregate_field: str | None = None

    @functools.cached_property
    def decoder(self) -> msgspec.json.Decoder[Any]:
        """The JSON decoder of the class; raises :class:`DefinitionError` when msgspec cannot decode it."""
        try:
            return msgspec.json.Decoder(self.cls)
        except (TypeError, NameError, AttributeError) as error:
            raise self.error(f"a field has a type that cannot be decoded from JSON: {error}") from error

    @functools.cached_property
    def result_decoder(self) -> msgspec.json.Decoder[Any]:
        """The JSON decoder of a query's answer."""
        hint = result_type_of(self.cls)
        try:
            return msgspec.json.Decoder(hint)
        except (TypeError, NameError, AttributeError) as error:
            raise self.error(f"its answer {hint!r} cannot be decoded from JSON: {error}") from error

    def error(self, problem: str) -> DefinitionError:
        """Return an error that names this class and its place."""
        return DefinitionError(
            f"{self.cls.__qualname__} ({self.source}): {problem}",
            cls=self.cls.__qualname__,
            file=self.source.file,
            line=self.source.line,
        )


def definition_of(cls: type) -> PayloadDefinition:
    """Return the definition of a payload class; raise :class:`DefinitionError` for any other class."""
    definition = cls.__dict__.get("__evento__")
    if not isinstance(definition, PayloadDefinition):
        raise DefinitionError(
            f"{cls.__module__}.{cls.__qualname__} is not a payload: derive it from DomainCommand, ServiceCommand, "
            "DomainEvent, ServiceEvent, Query or View"
        )
    return definition


def define(
    make: Callable[[Mapping[str, Any]], C],
    *,
    class_name: str,
    bases: tuple[type, ...],
    namespace: dict[str, Any],
    name: str | None,
    version: int,
    domain: str | None,
    abstract: bool,
    config: dict[str, Any],
) -> C:
    """Make a payload class with ``make`` and attach its :class:`PayloadDefinition`."""
    frame = sys._getframe(2)
    source = Source(frame.f_code.co_filename, frame.f_lineno)

    def fail(problem: str) -> DefinitionError:
        return DefinitionError(
            f"{class_name} ({source}): {problem}", cls=class_name, file=source.file, line=source.line
        )

    unknown = sorted(set(config) - _STRUCT_KEYWORDS)
    if unknown:
        raise fail(
            f"unknown class keyword {unknown[0]!r}: use name, version, domain or abstract"
            " (or an option of msgspec.Struct)"
        )
    if config.get("frozen") is False:
        raise fail("payloads are immutable: remove frozen=False")
    if config.get("array_like"):
        raise fail("payloads are JSON objects: remove array_like=True")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise fail(f"version= must be a whole number from 1, not {version!r}")
    if name is not None and (not isinstance(name, str) or not _is_wire_name(name)):
        raise fail(f"name={name!r} must be a word of letters, digits, '_' and '-'")

    framework = namespace.get("__module__") == _FRAMEWORK
    if not framework:
        _check_fields(fail, bases, namespace)
    try:
        cls = make(config)
    except TypeError as error:
        raise fail(str(error)) from error
    except DefinitionError:
        raise
    base = _inherited(bases)
    definition = PayloadDefinition(
        cls=cls,
        name=name or class_name,
        kind=getattr(cls, "__evento_kind__", None),
        version=version,
        domain=domain if domain is not None else (base.domain if base else ""),
        abstract=abstract,
        description=_description(namespace.get("__doc__")),
        source=source,
        aggregate_field=None if framework else _aggregate_field(fail, cls, frame.f_locals, abstract=abstract),
    )
    cast(Any, cls).__evento__ = definition
    return cls


def result_type_of(query: type) -> Any:
    """Return what the class of a query (or command) names as its answer: ``list[V]`` for ``Query[list[V]]``."""
    for cls in query.__mro__:
        for base in getattr(cls, "__orig_bases__", ()):
            arguments = get_args(base)
            origin = get_origin(base)
            if not arguments or not isinstance(origin, type) or "__evento__" not in origin.__dict__:
                continue
            argument = arguments[0]
            if isinstance(argument, TypeVar) or hasattr(argument, "__bound__"):
                continue
            if hasattr(argument, "__forward_arg__"):
                return _resolve_forward(cls, argument.__forward_arg__)
            return argument
    return Any


def _resolve_forward(cls: type, text: str) -> Any:
    holder = type("_Holder", (), {"__annotations__": {"value": text}, "__module__": cls.__module__})
    try:
        return get_type_hints(holder, include_extras=True)["value"]
    except NameError as error:
        raise definition_of(cls).error(f"its result {text!r} cannot be resolved: {error}") from error


def _is_wire_name(name: str) -> bool:
    return bool(name) and name.replace("-", "_").replace("_", "a").isalnum() and name.isascii()


def _description(doc: str | None) -> str:
    return inspect.cleandoc(doc) if doc else ""


def _inherited(bases: tuple[type, ...]) -> PayloadDefinition | None:
    for base in bases:
        definition = getattr(base, "__evento__", None)
        if isinstance(definition, PayloadDefinition):
            return definition
    return None


def _check_fields(fail: Callable[[str], DefinitionError], bases: tuple[type, ...], namespace: dict[str, Any]) -> None:
    own = namespace.get("__annotations__", {})
    reserved = {
        field
        for base in bases
        for cls in base.__mro__
        if cls.__module__ == _FRAMEWORK
        for field in getattr(cls, "__struct_fields__", ())
    }
    for field in own:
        if field in reserved:
            raise fail(f"the field {field!r} belongs to the framework: give yours another name")
        if field == "lock_id":
            raise fail("lock_id is derived from the command, not sent with it: define it as a property")
    for field in reserved & namespace.keys():
        raise fail(f"{field!r} belongs to the framework: give yours another name")
    if "lock_id" in namespace and not isinstance(namespace["lock_id"], property):
        raise fail("lock_id must be a property: add @property")


def _aggregate_field(
    fail: Callable[[str], DefinitionError], cls: type, local_names: dict[str, Any], *, abstract: bool
) -> str | None:
    hints = _resolve_hints(fail, cls, local_names)
    fields = [field for field, hint in hints.items() if field in cls.__struct_fields__ and _marks_aggregate(hint)]  # type: ignore[attr-defined]
    own_property = _has_aggregate_property(cls)
    if cls.__evento_kind__ is not PayloadKind.DOMAIN_COMMAND:  # type: ignore[attr-defined]
        return fields[0] if fields else None
    if len(fields) > 1:
        raise fail(f"two aggregate ids, {fields[0]!r} and {fields[1]!r}: mark one field only with AggregateId")
    if fields and own_property:
        raise fail(f"two aggregate ids, the field {fields[0]!r} and the property aggregate_id: keep one of them")
    if not fields and not own_property and not abstract:
        raise fail(
            "a domain command needs an aggregate id: annotate the field that names the aggregate with AggregateId, "
            "or define a property aggregate_id"
        )
    return fields[0] if fields else None


def _resolve_hints(fail: Callable[[str], DefinitionError], cls: type, local_names: dict[str, Any]) -> dict[str, Any]:
    own = inspect.get_annotations(cls)
    try:
        hints = get_type_hints(cls, localns={**local_names, cls.__name__: cls}, include_extras=True)
    except Exception as error:
        raise fail(
            f"an annotation cannot be resolved ({error}): import the type at run time (not under TYPE_CHECKING) "
            "and above this class"
        ) from error
    # msgspec resolves strings in the module's names only: hand it the types, so that local classes work too.
    for field in own:
        cls.__annotations__[field] = hints[field]
    return hints


def _marks_aggregate(hint: Any) -> bool:
    return any(
        isinstance(mark, msgspec.Meta) and bool(mark.extra) and (mark.extra or {}).get("evento") == "aggregate_id"
        for mark in getattr(hint, "__metadata__", ())
    )


def _has_aggregate_property(cls: type) -> bool:
    for base in cls.__mro__:
        if base.__module__ == _FRAMEWORK:
            return False
        if "aggregate_id" in base.__dict__:
            return isinstance(base.__dict__["aggregate_id"], property)
    return False
