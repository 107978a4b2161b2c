"""Self-description: what a bundle tells the servers' catalogue of its components, handlers and payloads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_origin

from evento.components import ComponentDefinition, HandlerDefinition, HandlerKind, Role
from evento.components.analysis import Send, sends_of
from evento.errors import DefinitionError
from evento.messages import PayloadDefinition, json_schema, result_type_of
from evento.messages.registration import (
    BundleDescription,
    ComponentDescription,
    HandlerDescription,
    PayloadDescription,
    SendDescription,
)

__all__ = ["describe"]

_CONSUMERS = {Role.PROJECTOR, Role.SAGA, Role.OBSERVER}
_COMMANDS = {HandlerKind.AGGREGATE_COMMAND, HandlerKind.COMMAND}


def describe(
    components: Iterable[ComponentDefinition], payloads: Iterable[PayloadDefinition], **about: Any
) -> BundleDescription:
    """Return the description of a bundle.

    :param about: the other fields of :class:`~evento.messages.registration.BundleDescription`.
    """
    components = list(components)
    handlers = [handler for component in components for handler in component.handlers]
    return BundleDescription(
        commands=_names(handlers, _COMMANDS),
        queries=_names(handlers, {HandlerKind.QUERY}),
        components=tuple(_component(component) for component in components),
        payloads=tuple(_payload(payload) for payload in payloads if payload.kind is not None and not payload.abstract),
        **about,
    )


def _names(handlers: Iterable[HandlerDefinition], kinds: set[HandlerKind]) -> tuple[str, ...]:
    return tuple(sorted({handler.payload_name for handler in handlers if handler.kind in kinds}))


def _component(component: ComponentDefinition) -> ComponentDescription:
    consumer = component.role in _CONSUMERS
    return ComponentDescription(
        name=component.name,
        role=component.role.value,
        handlers=tuple(_handler(component, handler) for handler in component.handlers),
        version=component.version if consumer else 1,
        contexts=tuple(component.contexts) if consumer else (),
        description=component.description,
        file=component.source.file,
        line=component.source.line,
    )


def _handler(component: ComponentDefinition, handler: HandlerDefinition) -> HandlerDescription:
    sends = sends_of(component, handler)
    return HandlerDescription(
        name=handler.name,
        kind=handler.kind.value,
        payload=handler.payload_name,
        results=tuple(_result_name(result) for result in handler.results),
        many=handler.kind is HandlerKind.QUERY and _gives_many(handler),
        init=handler.init,
        association_property=handler.association_property,
        executor=handler.executor,
        description=handler.description,
        file=handler.source.file,
        line=handler.source.line,
        sends=(
            *_sends("command", sends.commands),
            *_sends("query", sends.queries),
            *_sends("unresolved", sends.unresolved),
        ),
    )


def _result_name(result: type) -> str:
    definition = getattr(result, "__evento__", None)
    return definition.name if isinstance(definition, PayloadDefinition) else str(result)


def _gives_many(handler: HandlerDefinition) -> bool:
    result = result_type_of(handler.payload) if handler.payload is not None else None
    return get_origin(result) is list


def _sends(kind: str, sends: Iterable[Send]) -> tuple[SendDescription, ...]:
    return tuple(SendDescription(kind, send.name, send.file, send.line) for send in sends)


def _payload(payload: PayloadDefinition) -> PayloadDescription:
    assert payload.kind is not None  # noqa: S101 - the caller's choice
    try:
        schema = json_schema(payload.cls)
    except DefinitionError:
        schema = {}  # a type of the user's own that has no schema: the catalogue can do without
    return PayloadDescription(
        name=payload.name,
        kind=payload.kind.value,
        version=payload.version,
        domain=payload.domain,
        description=payload.description,
        file=payload.source.file,
        line=payload.source.line,
        schema=schema,
    )
