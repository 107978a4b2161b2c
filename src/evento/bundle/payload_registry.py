"""The payload classes of one bundle, by wire name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

from evento.components import ComponentDefinition
from evento.errors import DefinitionError
from evento.messages import Event, Payload, PayloadKind, definition_of, result_type_of

__all__ = ["PayloadRegistry"]


class PayloadRegistry:
    """Knows every payload class that a bundle handles, sends or receives; refuses two with one wire name."""

    def __init__(self) -> None:
        self._classes: dict[str, type[Payload]] = {}

    def add_component(self, component: ComponentDefinition) -> None:
        """Add the payloads that the handlers of a component name."""
        for handler in component.handlers:
            for cls in filter(None, (handler.payload, *handler.results)):
                self.add(cls)

    def add(self, cls: type) -> None:
        """Add a payload class and those that it names as its result.

        :raises DefinitionError: another class has its wire name, or it cannot be decoded from JSON.
        """
        if not issubclass(cls, Payload):
            return
        definition = definition_of(cls)
        if definition.abstract or definition.kind is None or self._classes.get(definition.name) is cls:
            return
        other = self._classes.get(definition.name)
        if other is not None:
            raise DefinitionError(
                f"two payload classes have the wire name {definition.name!r}: {_place(other)} and {_place(cls)}; give "
                "one of them another name, such as name='sales.OrderPlaced'",
                name=definition.name,
            )
        _ = definition.decoder
        self._classes[definition.name] = cls
        if definition.kind is PayloadKind.QUERY:
            _ = definition.result_decoder
        if definition.kind not in {PayloadKind.VIEW, PayloadKind.DOMAIN_EVENT, PayloadKind.SERVICE_EVENT}:
            for result in _classes_in(result_type_of(cls)):
                self.add(result)

    def event_class(self, name: str) -> type[Event] | None:
        """Return the event class of a wire name; None when the bundle does not know it."""
        cls = self._classes.get(name)
        return cls if cls is not None and issubclass(cls, Event) else None

    def __iter__(self) -> Any:
        return iter(self._classes.values())


def _classes_in(hint: Any) -> Iterable[type]:
    if isinstance(hint, type) and not get_args(hint):
        yield hint
    for argument in get_args(hint):
        yield from _classes_in(argument)


def _place(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__} ({definition_of(cls).source})"
