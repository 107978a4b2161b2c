"""Signatures of handlers: what a method is routed by, what is injected, what it returns."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import FunctionType
from typing import Any, get_args, get_origin

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from evento.components.decorators import HandlerMark
from evento.components.definition import HandlerKind, Injectable, Parameter, Role
from evento.components.hints import NONE, Site, fits, members, payload_definition, payloads_in, plain, show
from evento.components.injectables import FencingToken, ProjectorStatus
from evento.components.states import AggregateState, SagaState
from evento.errors import CapabilityError, DefinitionError
from evento.gateway.commands import CommandGateway
from evento.gateway.queries import QueryGateway
from evento.messages import (
    CommandMessage,
    EventMessage,
    Message,
    Metadata,
    Payload,
    PayloadKind,
    QueryMessage,
    Source,
    result_type_of,
)

__all__ = ["Method", "Signature", "read_signature"]

_EVENTS = frozenset({PayloadKind.DOMAIN_EVENT, PayloadKind.SERVICE_EVENT})
_PAYLOADS = {
    HandlerKind.AGGREGATE_COMMAND: frozenset({PayloadKind.DOMAIN_COMMAND}),
    HandlerKind.EVENT_SOURCING: frozenset({PayloadKind.DOMAIN_EVENT}),
    HandlerKind.COMMAND: frozenset({PayloadKind.SERVICE_COMMAND}),
    HandlerKind.QUERY: frozenset({PayloadKind.QUERY}),
    HandlerKind.EVENT: _EVENTS,
    HandlerKind.SAGA_EVENT: _EVENTS,
}
_HANDLED_BY = {
    PayloadKind.DOMAIN_COMMAND: "@aggregate_command_handler of an Aggregate",
    PayloadKind.SERVICE_COMMAND: "@command_handler of a Service",
    PayloadKind.DOMAIN_EVENT: "@event_handler, @saga_event_handler or @event_sourcing_handler",
    PayloadKind.SERVICE_EVENT: "@event_handler or @saga_event_handler",
    PayloadKind.QUERY: "@query_handler of a Projection",
    PayloadKind.VIEW: "no handler: views are answers",
}
_ENVELOPES = {
    HandlerKind.AGGREGATE_COMMAND: CommandMessage,
    HandlerKind.COMMAND: CommandMessage,
    HandlerKind.QUERY: QueryMessage,
    HandlerKind.EVENT_SOURCING: EventMessage,
    HandlerKind.EVENT: EventMessage,
    HandlerKind.SAGA_EVENT: EventMessage,
}
_INJECTABLES: Mapping[type, Injectable] = {
    CommandGateway: Injectable.COMMANDS,
    QueryGateway: Injectable.QUERIES,
    Metadata: Injectable.METADATA,
    datetime: Injectable.TIMESTAMP,
    ProjectorStatus: Injectable.STATUS,
    FencingToken: Injectable.FENCING_TOKEN,
    AsyncConnection: Injectable.CONNECTION,
    AsyncSession: Injectable.SESSION,
}
_MAYBE_NONE = frozenset({Injectable.STATE, Injectable.FENCING_TOKEN})


@dataclass(frozen=True, slots=True)
class Method:
    """A marked method of a component class, with its hints resolved."""

    component: str
    name: str
    role: Role
    site: Site
    state: type | None
    mark: HandlerMark
    function: FunctionType
    hints: Mapping[str, Any]

    @property
    def source(self) -> Source:
        """The place of the method."""
        code = inspect.unwrap(self.function).__code__
        return Source(code.co_filename, code.co_firstlineno)

    def error(self, problem: str, kind: type[DefinitionError] = DefinitionError) -> DefinitionError:
        """Return an error that names the method and its place."""
        source = self.source
        return kind(
            f"{self.component}.{self.name} ({source}): {problem}",
            cls=self.component,
            handler=self.name,
            file=source.file,
            line=source.line,
        )


@dataclass(frozen=True, slots=True)
class Signature:
    """What the signature of a routed handler says."""

    payload: type[Payload]
    parameters: tuple[Parameter, ...]
    results: tuple[type, ...]
    returns_none: bool


def read_signature(method: Method) -> Signature:
    """Check the signature of a routed handler and return what it says."""
    first, *others = _parameters(method)
    payload = _payload_of(method, first)
    parameters = tuple(_injected(method, parameter, payload) for parameter in others)
    for injectable in {parameter.injectable for parameter in parameters}:
        _check_use(method, injectable)
    results, returns_none = _returned(method, payload)
    return Signature(payload, parameters, results, returns_none)


def _parameters(method: Method) -> list[inspect.Parameter]:
    parameters = list(inspect.signature(method.function).parameters.values())[1:]  # without self
    for parameter in parameters:
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            raise method.error(
                f"a handler takes no *{parameter.name} or **{parameter.name}: name what is to be injected"
            )
        if parameter.name not in method.hints:
            raise method.error(f"the parameter {parameter.name!r} has no type hint, but types say what is injected")
    if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise method.error("a handler's first parameter after self is the payload that it handles: add it")
    return parameters


def _payload_of(method: Method, parameter: inspect.Parameter) -> type[Payload]:
    hint = plain(method.hints[parameter.name])
    wanted = _PAYLOADS[method.mark.kind]
    names = " or ".join(sorted(kind.value for kind in wanted))
    if len(members(hint)) > 1:
        raise method.error(f"{parameter.name}: {show(hint)} is a union: write one handler for each class")
    definition = payload_definition(hint)
    if definition is None:
        raise method.error(f"{parameter.name}: {show(hint)} is no payload: {method.mark.decorator} handles a {names}")
    if definition.kind not in wanted:
        mend = f" (it is for {_HANDLED_BY[definition.kind]})" if definition.kind else ""
        kind = definition.kind.value if definition.kind else "base class"
        raise method.error(
            f"{parameter.name}: {show(hint)} is a {kind}, but {method.mark.decorator} handles a {names}{mend}"
        )
    if definition.abstract:
        raise method.error(f"{parameter.name}: {show(hint)} is abstract: write one handler for each of its subclasses")
    return hint  # type: ignore[no-any-return]


def _injected(method: Method, parameter: inspect.Parameter, payload: type) -> Parameter:
    hint = plain(method.hints[parameter.name])
    wanted = [member for member in members(hint) if member is not NONE]
    injectable = _injectable(method, wanted[0], payload) if len(wanted) == 1 else None
    if injectable is None:
        raise method.error(
            f"nothing is known to inject for {parameter.name}: {show(hint)}. A handler may ask for "
            f"{_offer(method)}; what else it needs, the constructor takes"
        )
    if len(members(hint)) > 1 and injectable not in _MAYBE_NONE:
        raise method.error(f"{parameter.name} is never None: write {parameter.name}: {show(wanted[0])}")
    if injectable is Injectable.STATE and method.role is Role.SAGA and method.mark.init and len(members(hint)) == 1:
        raise method.error(
            f"{parameter.name} is None when the saga begins: write {parameter.name}: {show(wanted[0])} | None"
        )
    return Parameter(parameter.name, injectable, keyword_only=parameter.kind is parameter.KEYWORD_ONLY)


def _injectable(method: Method, hint: Any, payload: type) -> Injectable | None:
    origin = get_origin(hint) or hint
    if not isinstance(origin, type):
        return None
    if issubclass(origin, Message):
        return _envelope(method, hint, origin, payload)
    if issubclass(origin, (AggregateState, SagaState)):
        return _state(method, origin)
    return _INJECTABLES.get(origin)


def _envelope(method: Method, hint: Any, origin: type, payload: type) -> Injectable:
    envelope = _ENVELOPES[method.mark.kind]
    if not issubclass(envelope, origin):
        raise method.error(
            f"{show(hint)} is not the envelope of this handler: use {envelope.__name__}[{payload.__name__}]"
        )
    for argument in get_args(hint):
        if not fits(payload, argument):
            raise method.error(
                f"{show(hint)} does not carry {payload.__name__}: use {origin.__name__}[{show(payload)}]"
            )
    return Injectable.MESSAGE


def _state(method: Method, hint: type) -> Injectable:
    if method.state is None:
        raise method.error(f"{method.role.with_article} has no state: remove the parameter of type {show(hint)}")
    if not issubclass(method.state, hint):
        raise method.error(f"{show(hint)} is not the state of this {method.role.value}: use {show(method.state)}")
    return Injectable.STATE


def _offer(method: Method) -> str:
    envelope = _ENVELOPES[method.mark.kind].__name__
    offered = [cls.__name__ for cls, injectable in _INJECTABLES.items() if _refusal(method, injectable) is None]
    state = [] if method.state is None or _refusal(method, Injectable.STATE) else [method.state.__name__]
    return ", ".join([envelope, *state, *offered])


def _check_use(method: Method, injectable: Injectable) -> None:
    problem = _refusal(method, injectable)
    if problem is None:
        return
    capability = injectable in {Injectable.COMMANDS, Injectable.QUERIES}
    raise method.error(problem, CapabilityError if capability else DefinitionError)


def _missing_capability(role: Role, injectable: Injectable) -> str | None:
    """Say why a role may not have this gateway; None when it may, and for everything else."""
    match injectable:
        case Injectable.COMMANDS if not role.may_send_commands:
            return (
                f"{role.with_article} may not send commands: it only reads; remove the CommandGateway and let a saga "
                "or an observer send the command"
            )
        case Injectable.QUERIES if not role.may_query:
            return (
                f"{role.with_article} may not send queries, for it decides on what it knows: remove the QueryGateway "
                "and put what the query would tell into the command"
            )
    return None


def _refusal(method: Method, injectable: Injectable) -> str | None:
    """Say why a handler may not ask for this; None when it may."""
    role, kind = method.role, method.mark.kind
    incapable = _missing_capability(role, injectable)
    if incapable is not None:
        return incapable
    match injectable:
        case Injectable.COMMANDS if kind is HandlerKind.EVENT_SOURCING:
            return "folding runs again on every replay and so sends nothing: send the command elsewhere"
        case Injectable.STATE if kind is HandlerKind.AGGREGATE_COMMAND and method.mark.init:
            return "there is no state before the init command: remove the state parameter, or init=True"
        case Injectable.STATUS if role is not Role.PROJECTOR:
            return f"only projectors have a ProjectorStatus: remove it from this {role.value}"
        case Injectable.FENCING_TOKEN if kind is not HandlerKind.COMMAND:
            return "only the command handlers of services hold a lock with a FencingToken: remove it"
        case Injectable.CONNECTION | Injectable.SESSION if role is not Role.PROJECTOR:
            return (
                f"only projectors share the transaction of the consumer state store: let the constructor of this "
                f"{role.value} take what it needs to reach the database"
            )
        case Injectable.CONNECTION | Injectable.SESSION if method.mark.executor is not None:
            return "handlers of an executor run side by side and share no transaction: remove executor="
    return None


def _returned(method: Method, payload: type) -> tuple[tuple[type, ...], bool]:
    if "return" not in method.hints:
        return _unhinted(method), True
    hint = plain(method.hints["return"])
    parts = [member for member in members(hint) if member is not NONE]
    returns_none = NONE in members(hint)
    match method.mark.kind:
        case HandlerKind.AGGREGATE_COMMAND:
            if returns_none or not parts:
                raise method.error("an aggregate's command gives exactly one event or raises: do not return None")
            return _events(method, parts, PayloadKind.DOMAIN_EVENT, payload, hint), False
        case HandlerKind.COMMAND:
            return _events(method, parts, PayloadKind.SERVICE_EVENT, payload, hint), returns_none
        case HandlerKind.QUERY:
            declared = result_type_of(payload, method.site.local_names)
            if not fits(hint, declared):
                raise method.error(
                    f"returns {show(hint)}, but {payload.__name__} is answered with {show(declared)}: make them alike"
                )
            return tuple(dict.fromkeys(payloads_in(hint))), returns_none
        case HandlerKind.EVENT_SOURCING | HandlerKind.SAGA_EVENT:
            state = method.state
            if any(part is not Any and not (isinstance(part, type) and fits(part, state)) for part in parts):
                raise method.error(f"returns {show(hint)}: return the state, {show(state)}, or None")
        case _:
            if any(part is not Any for part in parts):
                raise method.error(f"returns {show(hint)}, but nobody receives it: return None")
    return (), returns_none


def _unhinted(method: Method) -> tuple[type, ...]:
    match method.mark.kind:
        case HandlerKind.AGGREGATE_COMMAND:
            mend = "the event, such as '-> OrderPlacedEvent'"
        case HandlerKind.COMMAND:
            mend = "the event, such as '-> PaymentCapturedEvent', or '-> None'"
        case HandlerKind.QUERY:
            mend = "the answer, such as '-> OrderView'"
        case _:
            return ()
    raise method.error(f"the return type hint is missing: add {mend}")


def _events(method: Method, parts: list[Any], kind: PayloadKind, payload: type, hint: Any) -> tuple[type, ...]:
    for part in parts:
        definition = payload_definition(part)
        if definition is None or definition.kind is not kind:
            raise method.error(f"returns {show(part)}, but must return a {kind.value}: use a subclass of it")
        if definition.abstract:
            raise method.error(f"returns {show(part)}, which is abstract: name the events themselves, joined by |")
    declared = result_type_of(payload, method.site.local_names)
    if not fits(hint, declared):
        raise method.error(
            f"returns {show(hint)}, but {payload.__name__} says that it gives {show(declared)}: make them alike"
        )
    return tuple(parts)
