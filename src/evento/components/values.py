"""What an expression may be, as far as its source tells: payloads, gateways, methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, TypeVar, get_args, get_origin

from evento.components.hints import NONE, members, plain
from evento.components.sources import MISSING
from evento.gateway.commands import CommandGateway
from evento.gateway.queries import QueryGateway
from evento.messages import Payload

__all__ = ["NOTHING", "UNKNOWN", "Factory", "Value", "is_payload", "join", "value_of_hint", "value_of_object"]

_GATEWAYS: Mapping[type, str] = {CommandGateway: "commands", QueryGateway: "queries"}


@dataclass(frozen=True, slots=True)
class Factory:
    """A class method of a payload class."""

    payload: type
    function: FunctionType


@dataclass(frozen=True, slots=True)
class Value:
    """What an expression may be; it may be several of these.

    ``payloads``: an object of one of these classes; ``elements``: a collection of such objects; ``gateways``: the
    "commands" or "queries" gateway; ``senders``: the sending method of that gateway; ``objects``: this class, function
    or module itself; ``methods``: this method, bound to the instance; ``instance``: the instance (``self``);
    ``unknown``: something that the source does not tell.
    """

    payloads: frozenset[type] = frozenset()
    elements: frozenset[type] = frozenset()
    gateways: frozenset[str] = frozenset()
    senders: frozenset[str] = frozenset()
    objects: frozenset[Any] = frozenset()
    methods: frozenset[FunctionType] = frozenset()
    instance: bool = False
    unknown: bool = False

    def __or__(self, other: Value) -> Value:
        return Value(**{name: getattr(self, name) | getattr(other, name) for name in _FIELDS})

    @property
    def abstract(self) -> frozenset[type]:
        """The payload classes among these that are abstract."""
        return frozenset(cls for cls in self.payloads if cls.__evento__.abstract)  # type: ignore[attr-defined]

    @property
    def opaque(self) -> bool:
        """Whether it may be something of which calls and attributes are not known."""
        return self.unknown or bool(self.payloads or self.elements or self.gateways or self.senders or self.instance)

    @property
    def settled(self) -> bool:
        """Whether it is known, down to concrete payloads."""
        return self != NOTHING and not self.unknown and not self.abstract

    @property
    def element(self) -> Value:
        """What the elements of this collection may be."""
        return Value(payloads=self.elements, unknown=self.unknown or (not self.elements and self != NOTHING))

    @property
    def collected(self) -> Value:
        """A collection of such values."""
        return Value(elements=self.payloads, unknown=self.unknown)


_FIELDS = tuple(field.name for field in fields(Value))
NOTHING = Value()
UNKNOWN = Value(unknown=True)


def is_payload(thing: object) -> bool:
    """Whether a thing is a payload class."""
    return isinstance(thing, type) and issubclass(thing, Payload)


def join(values: Iterable[Value]) -> Value:
    """Return what is one of several values."""
    result = NOTHING
    for value in values:
        if result is NOTHING:
            result = value
        elif value is not NOTHING and value is not result:
            result |= value
    return result


def value_of_hint(hint: Any) -> Value:
    """Return what something of this type may be."""
    return UNKNOWN if hint is MISSING else join(_of_member(member) for member in members(hint))


def _of_member(hint: Any) -> Value:
    if hint is NONE:
        return NOTHING
    if isinstance(hint, TypeVar):
        return UNKNOWN if hint.__bound__ is None else value_of_hint(hint.__bound__)
    origin = get_origin(hint) or hint
    if not isinstance(origin, type):
        return UNKNOWN
    if origin in _GATEWAYS:
        return Value(gateways=frozenset({_GATEWAYS[origin]}))
    if is_payload(origin):
        return Value(payloads=frozenset({origin}))
    arguments = [plain(argument) for argument in get_args(hint) if argument is not Ellipsis]
    if len(arguments) == 1 and issubclass(origin, Iterable):
        return value_of_hint(arguments[0]).collected
    return UNKNOWN


def value_of_object(thing: Any) -> Value:
    """Return the value of a thing that exists already."""
    if isinstance(thing, Payload):
        return Value(payloads=frozenset({type(thing)}))
    if type(thing) in _GATEWAYS:
        return Value(gateways=frozenset({_GATEWAYS[type(thing)]}))
    if isinstance(thing, (type, ModuleType, FunctionType, BuiltinFunctionType)):
        try:
            return Value(objects=frozenset({thing}))
        except TypeError:  # a metaclass may take the hash from its classes
            return UNKNOWN
    return UNKNOWN
