"""Frozen definitions of components and their handlers: what the runtime works from, resolved once per class."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from evento.errors import DefinitionError
from evento.messages import Payload, Source

__all__ = [
    "ComponentDefinition",
    "HandlerDefinition",
    "HandlerKind",
    "Injectable",
    "Injection",
    "Parameter",
    "Role",
]


class Role(enum.Enum):
    """The seven component types."""

    AGGREGATE = "Aggregate"
    SERVICE = "Service"
    PROJECTOR = "Projector"
    PROJECTION = "Projection"
    SAGA = "Saga"
    OBSERVER = "Observer"
    INVOKER = "Invoker"

    @property
    def with_article(self) -> str:
        """The role in a sentence: "an Aggregate"."""
        return f"{'an' if self.value[0] in 'AIO' else 'a'} {self.value}"

    @property
    def may_send_commands(self) -> bool:
        """Whether components of this role may use a CommandGateway."""
        return self not in {Role.PROJECTOR, Role.PROJECTION}

    @property
    def may_query(self) -> bool:
        """Whether components of this role may use a QueryGateway."""
        return self not in {Role.AGGREGATE, Role.SERVICE}


class HandlerKind(enum.Enum):
    """The kinds of handler, one decorator each."""

    AGGREGATE_COMMAND = "AggregateCommandHandler"
    EVENT_SOURCING = "EventSourcingHandler"
    COMMAND = "CommandHandler"
    QUERY = "QueryHandler"
    EVENT = "EventHandler"
    SAGA_EVENT = "SagaEventHandler"
    INVOCATION = "InvocationHandler"


class Injectable(enum.Enum):
    """What a handler may ask for by type; the value is the attribute of :class:`Injection` that holds it."""

    COMMANDS = "commands"
    QUERIES = "queries"
    MESSAGE = "message"
    METADATA = "metadata"
    TIMESTAMP = "timestamp"
    STATE = "state"
    STATUS = "status"
    FENCING_TOKEN = "fencing_token"  # noqa: S105 - not a password
    CONNECTION = "connection"
    SESSION = "session"


class Injection(Protocol):
    """Where the values of injected parameters come from, one attribute for each :class:`Injectable`.

    An implementation needs only the attributes that its handlers may ask for.
    """


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter after the first one, and what is injected."""

    name: str
    injectable: Injectable
    keyword_only: bool = False


@dataclass(frozen=True)
class HandlerDefinition:
    """One handler of a component.

    ``payload`` is the class it is routed by (None for invocations), ``results`` the payload classes of its return
    hint (without None), ``returns_none`` whether the hint allows None.
    """

    kind: HandlerKind
    component: str
    name: str
    function: Callable[..., Any]
    is_async: bool
    source: Source
    payload: type[Payload] | None = None
    parameters: tuple[Parameter, ...] = ()
    results: tuple[type, ...] = ()
    returns_none: bool = False
    init: bool = False
    retry: int = 3
    retry_delay: timedelta = timedelta(seconds=1)
    executor: str | None = None
    association_property: str | None = None
    tracked: bool = False
    description: str = ""

    @property
    def payload_name(self) -> str:
        """The wire name of the payload; of an invocation ``Component::method``."""
        return f"{self.component}::{self.name}" if self.payload is None else self.payload.__evento__.name

    @property
    def id(self) -> str:
        """``Component.method``, for messages and derived ids."""
        return f"{self.component}.{self.name}"

    def needs(self, injectable: Injectable) -> bool:
        """Whether the handler asks for this."""
        return any(parameter.injectable is injectable for parameter in self.parameters)

    def bind(self, instance: object) -> Callable[[Any, Any], Any]:
        """Return ``call(payload, injection)`` for one instance: the result, or a coroutine when ``is_async``."""
        method = self.function.__get__(instance)
        positional = tuple(p.injectable.value for p in self.parameters if not p.keyword_only)
        named = tuple((p.name, p.injectable.value) for p in self.parameters if p.keyword_only)
        if named:
            return lambda payload, source: method(
                payload,
                *(getattr(source, attribute) for attribute in positional),
                **{name: getattr(source, attribute) for name, attribute in named},
            )
        # Handlers run for every message: the usual shapes get a call of their own.
        if not positional:
            return lambda payload, source: method(payload)
        if positional == ("state",):
            return lambda payload, source: method(payload, source.state)
        if len(positional) == 1:
            attribute = positional[0]
            return lambda payload, source: method(payload, getattr(source, attribute))
        return lambda payload, source: method(payload, *(getattr(source, name) for name in positional))


@dataclass(frozen=True)
class ComponentDefinition:
    """One component class.

    ``name`` is the class name; the options are those of the role (see the base classes), at their defaults elsewhere.
    ``analysed`` keeps what the source analysis has found, by handler.
    """

    role: Role
    cls: type
    name: str
    source: Source
    handlers: tuple[HandlerDefinition, ...]
    description: str = ""
    state: type | None = None
    version: int = 1
    contexts: tuple[str, ...] = ("*",)
    wait_for_head_reached: bool = False
    projectors: tuple[type, ...] = ()
    snapshot_frequency: int = -1
    snapshot_version: int = 1
    analysed: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _index: dict[tuple[HandlerKind, str], HandlerDefinition] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._index.update({(handler.kind, handler.payload_name): handler for handler in self.handlers})

    def handlers_of(self, kind: HandlerKind) -> tuple[HandlerDefinition, ...]:
        """Return the handlers of one kind."""
        return tuple(handler for handler in self.handlers if handler.kind is kind)

    def handler_for(self, kind: HandlerKind, payload_name: str) -> HandlerDefinition | None:
        """Return the handler of a payload's wire name; None when there is none."""
        return self._index.get((kind, payload_name))

    def error(self, problem: str) -> DefinitionError:
        """Return an error that names this class and its place."""
        return DefinitionError(
            f"{self.cls.__qualname__} ({self.source}): {problem}",
            cls=self.cls.__qualname__,
            file=self.source.file,
            line=self.source.line,
        )
