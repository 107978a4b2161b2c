"""The payload base classes: commands, events, queries and views.

A payload is a frozen :class:`msgspec.Struct`. Its class is checked when it is made, so that a mistake shows at import
and not at the first message (:class:`~evento.errors.DefinitionError`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Generic, TypeAlias, cast

import msgspec
from msgspec import Struct, StructMeta
from typing_extensions import TypeVar, dataclass_transform

from evento.messages.definition import PayloadDefinition, PayloadKind, define

__all__ = [
    "AggregateId",
    "Command",
    "DomainCommand",
    "DomainEvent",
    "Event",
    "Payload",
    "Query",
    "ServiceCommand",
    "ServiceEvent",
    "View",
]

AggregateId: TypeAlias = Annotated[str, msgspec.Meta(extra={"evento": "aggregate_id"})]
"""A str: the field that names a domain command's aggregate. Unique in the whole system, so prefix it: ``ORD_1``."""

R_co = TypeVar("R_co", covariant=True, default=Any)


class PayloadMeta(StructMeta):
    """Takes Evento's class keywords (``name``, ``version``, ``domain``, ``abstract``) and checks the definition."""

    def __new__(
        mcls,
        class_name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        /,
        *,
        name: str | None = None,
        version: int = 1,
        domain: str | None = None,
        abstract: bool = False,
        **config: Any,
    ) -> PayloadMeta:
        """Make the class, then its definition."""
        make = cast(Callable[..., PayloadMeta], super().__new__)
        return define(
            lambda keywords: make(mcls, class_name, bases, namespace, **keywords),
            class_name=class_name,
            bases=bases,
            namespace=namespace,
            name=name,
            version=version,
            domain=domain,
            abstract=abstract,
            config=config,
        )


# On the class and not on its metaclass: type checkers meet the mark of Struct before that of a metaclass.
@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Payload(Struct, frozen=True, metaclass=PayloadMeta, abstract=True):
    """What all payloads have in common: they are immutable, compare by value, and have a wire name."""

    __evento__: ClassVar[PayloadDefinition]


class Command(Payload, Generic[R_co], kw_only=True, abstract=True):
    """A request to change something; ``R`` is what sending it returns."""

    __evento_kind__: ClassVar[PayloadKind | None] = None

    force_telemetry: bool = False

    @property
    def lock_id(self) -> str | None:
        """Commands with one lock id are decided one after another; None: no order at all."""
        return None


E_co = TypeVar("E_co", covariant=True, bound="DomainEvent", default="DomainEvent")
S_co = TypeVar("S_co", covariant=True, default="ServiceEvent | None")


class DomainCommand(Command[E_co], Generic[E_co], kw_only=True, abstract=True):
    """A command for one aggregate: ``class OrderPlaceCommand(DomainCommand[OrderPlacedEvent], domain="Order")``.

    Mark the field that names the aggregate with :data:`AggregateId`, or define a property ``aggregate_id``.
    ``invalidate_aggregate_caches`` and ``invalidate_aggregate_snapshot`` act before the command is handled, on the
    replica that handles it: the state is loaded anew; with the second, from the events alone.
    """

    __evento_kind__: ClassVar[PayloadKind | None] = PayloadKind.DOMAIN_COMMAND

    invalidate_aggregate_caches: bool = False
    invalidate_aggregate_snapshot: bool = False

    @property
    def aggregate_id(self) -> str:
        """The aggregate that handles this command: the value of the :data:`AggregateId` field."""
        return cast(str, getattr(self, cast(str, self.__evento__.aggregate_field)))

    @property
    def lock_id(self) -> str | None:
        """By default the aggregate id. None gives up the promise that no two events are decided on one state."""
        return self.aggregate_id


class ServiceCommand(Command[S_co], Generic[S_co], kw_only=True, abstract=True):
    """A command for a service: ``class PaymentCaptureCommand(ServiceCommand[PaymentCapturedEvent])``."""

    __evento_kind__: ClassVar[PayloadKind | None] = PayloadKind.SERVICE_COMMAND

    @property
    def lock_id(self) -> str | None:
        """None by default: no lock. The event of the command is stored under this id as its aggregate id."""
        return None


class Event(Payload, kw_only=True, abstract=True):
    """Something that happened. ``context`` is the partition of the stream that consumers may select."""

    __evento_kind__: ClassVar[PayloadKind | None] = None

    context: str = "default"
    force_telemetry: bool = False


class DomainEvent(Event, abstract=True):
    """An event of an aggregate."""

    __evento_kind__: ClassVar[PayloadKind | None] = PayloadKind.DOMAIN_EVENT


class ServiceEvent(Event, abstract=True):
    """An event of a service."""

    __evento_kind__: ClassVar[PayloadKind | None] = PayloadKind.SERVICE_EVENT


class Query(Payload, Generic[R_co], kw_only=True, abstract=True):
    """A question: ``Query[OrderView]`` is answered with one view, ``Query[list[OrderView]]`` with many."""

    __evento_kind__: ClassVar[PayloadKind | None] = PayloadKind.QUERY

    force_telemetry: bool = False


class View(Payload, abstract=True):
    """An answer to a query."""

    __evento_kind__: ClassVar[PayloadKind | None] = PayloadKind.VIEW
