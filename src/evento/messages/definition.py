"""What a payload class is: its wire name, kind and fields, found and checked when the class is made."""

from __future__ import annotations

import enum
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec

from evento.errors import DefinitionError
from evento.messages.decodable import decoder_for

__all__ = ["PayloadDefinition", "PayloadKind", "Source", "define", "definition_of", "names_around", "result_type_of"]

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
            return decoder_for(self.cls)
        except TypeError as error:
            raise self.error(f"a field has a type that cannot be decoded from JSON: {error}") from error

    @functools.cached_property
    def result(self) -> Any:
        """What sending the payload gives, by its class; Any when the class does not say, or a type variable."""
        try:
            return _result(self.cls, {})
        except NameError as error:
            raise self.error(f"its result cannot be resolved: {error}") from error

    @functools.cached_property
    def result_decoder(self) -> msgspec.json.Decoder[Any]:
        """The JSON decoder of a query's answer."""
        hint = result_type_of(self.cls)
        try:
            return decoder_for(hint)
        except TypeError as error:
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
    if name is None and not _is_wire_name(class_name):
        raise fail("the class name is the wire name, which must be ASCII: give the class a name=")

    framework = namespace.get("__module__") == _FRAMEWORK
    if not framework:
        _check_fields(fail, bases, namespace)
    try:
        cls = make(config)
    except TypeError as error:
        raise fail(str(error)) from error
    except DefinitionError:
        raise
    kind = getattr(cls, "__evento_kind__", None)
    if kind is None and not abstract:
        raise fail(
            f"{bases[0].__name__} has no kind of its own: derive the class from DomainCommand, ServiceCommand, "
            "DomainEvent, ServiceEvent, Query or View (or say abstract=True)"
        )
    local_names = names_around(frame)
    base = _inherited(bases)
    definition = PayloadDefinition(
        cls=cls,
        name=name or class_name,
        kind=kind,
        version=version,
        domain=domain if domain is not None else (base.domain if base else ""),
        abstract=abstract,
        description=_description(namespace.get("__doc__")),
        source=source,
        aggregate_field=None if framework else _aggregate_field(fail, cls, local_names, abstract=abstract),
    )
    cast(Any, cls).__evento__ = definition
    with suppress(NameError):  # a string may name a class that follows
        definition.__dict__["result"] = _result(cls, local_names)
    return cls


def result_type_of(payload: type, local_names: Mapping[str, Any] | None = None) -> Any:
    """Return what the class of a query or command names as its answer: ``list[V]`` for ``Query[list[V]]``.

    Any when it names none. ``local_names`` resolve a string that names a class of a function.
    """
    definition = definition_of(payload)
    if local_names and "result" not in definition.__dict__:
        with suppress(NameError):
            definition.__dict__["result"] = _result(payload, local_names)
    return Any if _is_variable(definition.result) else definition.result


def names_around(frame: FrameType) -> dict[str, Any]:
    """Return the local names that a class statement in this frame sees: those of its function, if it is in one."""
    names: dict[str, Any] = {}
    current: FrameType | None = frame
    while current is not None and current.f_locals is not current.f_globals:
        names = {**current.f_locals, **names}
        if "__qualname__" not in current.f_locals:  # a function, not the body of a class around ours
            break
        current = current.f_back
    return names


def _result(cls: type, local_names: Mapping[str, Any]) -> Any:
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        origin = get_origin(base) or base
        definition = origin.__dict__.get("__evento__")
        if definition is None:
            continue
        arguments = [_resolved(cls, argument, local_names) for argument in get_args(base)]
        if origin.__module__ == _FRAMEWORK:
            return arguments[0] if arguments else Any
        given = dict(zip(getattr(origin, "__parameters__", ()), arguments, strict=False))
        return _substituted(definition.result, given)
    return Any


def _resolved(cls: type, argument: Any, local_names: Mapping[str, Any]) -> Any:
    if not hasattr(argument, "__forward_arg__"):
        return argument
    holder = type("_Holder", (), {"__annotations__": {"value": argument.__forward_arg__}, "__module__": cls.__module__})
    return get_type_hints(holder, localns=dict(local_names), include_extras=True)["value"]


def _substituted(hint: Any, given: Mapping[Any, Any]) -> Any:
    if _is_variable(hint):
        return given.get(hint, hint)
    parameters = () if isinstance(hint, type) and get_origin(hint) is None else getattr(hint, "__parameters__", ())
    return hint[tuple(given.get(one, one) for one in parameters)] if parameters else hint


def _is_variable(hint: Any) -> bool:
    return isinstance(hint, TypeVar) or (hasattr(hint, "__bound__") and hasattr(hint, "__name__"))


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
    nested = {name: value for name, value in vars(cls).items() if isinstance(value, type)}
    names = {**local_names, **nested, cls.__name__: cls}
    try:
        hints = get_type_hints(cls, localns=names, include_extras=True)
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
