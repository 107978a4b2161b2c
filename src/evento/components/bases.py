"""The base classes of the seven component types: a component says what it is by the class it derives from.

All of them take the class keyword ``abstract=True``: a class to inherit handlers from, that is no component itself.
Class keywords that a class does not give are those of its base.
"""

from __future__ import annotations

from typing import ClassVar, Generic, Never, TypeVar

from evento.components.definition import ComponentDefinition, Role
from evento.components.inspection import define_component
from evento.components.invocation import InvocationRuntime, runtime_of
from evento.components.states import AggregateState, SagaState
from evento.errors import EventoError
from evento.gateway.commands import CommandGateway
from evento.gateway.handling import current_handling
from evento.gateway.queries import QueryGateway
from evento.messages import InvocationMessage

__all__ = ["Aggregate", "Component", "Invoker", "Observer", "Projection", "Projector", "Saga", "Service"]

A = TypeVar("A", bound=AggregateState)
S = TypeVar("S", bound=SagaState)


class Component:
    """What the seven component types have in common; derive from one of them, not from this class."""

    __evento_component__: ClassVar[ComponentDefinition]
    __evento_role__: ClassVar[Role]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if not hasattr(cls, "__evento_role__"):
            define_component(cls, abstract=False, options={}, unknown={})


class Aggregate(Component, Generic[A]):
    """Decides domain commands on a state that is folded from its own events: ``class Order(Aggregate[OrderState])``.

    One instance serves all aggregates of its type, many at a time, so it keeps nothing in itself. May send commands.

    :param snapshot_frequency: a snapshot is kept when at least so many events had to be folded; -1 (default): never.
    :param snapshot_version: raise it when a helper of the folding handlers changes, so that old snapshots are not used.
    """

    __evento_role__ = Role.AGGREGATE

    def __init_subclass__(
        cls,
        *,
        snapshot_frequency: int | None = None,
        snapshot_version: int | None = None,
        abstract: bool = False,
        **unknown: Never,
    ) -> None:
        options = {"snapshot_frequency": snapshot_frequency, "snapshot_version": snapshot_version}
        define_component(cls, abstract=abstract, options=options, unknown=unknown)
        super().__init_subclass__()


class Service(Component):
    """Handles service commands: the bridge to other systems. Keeps nothing in itself. May send commands."""

    __evento_role__ = Role.SERVICE

    def __init_subclass__(cls, *, abstract: bool = False, **unknown: Never) -> None:
        define_component(cls, abstract=abstract, options={}, unknown=unknown)
        super().__init_subclass__()


class Projector(Component):
    """Makes a read model from events, one after another in their order, beginning with the first. May query.

    :param version: mandatory; a new version makes the read model anew from the first event.
    :param wait_for_head_reached: the bundle is not enabled before this projector has caught up.
    :param contexts: the contexts (with ``*`` as wildcard) of which each is followed on its own; default all in one.
    """

    __evento_role__ = Role.PROJECTOR

    def __init_subclass__(
        cls,
        *,
        version: int | None = None,
        wait_for_head_reached: bool | None = None,
        contexts: tuple[str, ...] | None = None,
        abstract: bool = False,
        **unknown: Never,
    ) -> None:
        options = {"version": version, "wait_for_head_reached": wait_for_head_reached, "contexts": contexts}
        define_component(cls, abstract=abstract, options=options, unknown=unknown)
        super().__init_subclass__()


class Projection(Component):
    """Answers queries from a read model. Keeps nothing in itself. May query.

    :param projectors: the projectors that make its read model, whom ``at_least`` waits for; default: all of the bundle.
    """

    __evento_role__ = Role.PROJECTION

    def __init_subclass__(
        cls, *, projectors: tuple[type[Projector], ...] | None = None, abstract: bool = False, **unknown: Never
    ) -> None:
        define_component(cls, abstract=abstract, options={"projectors": projectors}, unknown=unknown)
        super().__init_subclass__()


class Saga(Component, Generic[S]):
    """Leads a process over many aggregates: keeps a state between events, sends commands and queries.

    Events are handled one after another in their order, beginning at the head of the stream when it is first started.

    :param version: mandatory; a new version begins anew, at the head, without the states of the old one.
    :param contexts: the contexts (with ``*`` as wildcard) of which each is followed on its own; default all in one.
    """

    __evento_role__ = Role.SAGA

    def __init_subclass__(
        cls,
        *,
        version: int | None = None,
        contexts: tuple[str, ...] | None = None,
        abstract: bool = False,
        **unknown: Never,
    ) -> None:
        options = {"version": version, "contexts": contexts}
        define_component(cls, abstract=abstract, options=options, unknown=unknown)
        super().__init_subclass__()


class Observer(Component):
    """Reacts to events, many at a time and in no order: keeps nothing in itself, sends commands and queries.

    :param version: mandatory; a new version begins anew, at the head of the stream.
    :param contexts: the contexts (with ``*`` as wildcard) of which each is followed on its own; default all in one.
    """

    __evento_role__ = Role.OBSERVER

    def __init_subclass__(
        cls,
        *,
        version: int | None = None,
        contexts: tuple[str, ...] | None = None,
        abstract: bool = False,
        **unknown: Never,
    ) -> None:
        options = {"version": version, "contexts": contexts}
        define_component(cls, abstract=abstract, options=options, unknown=unknown)
        super().__init_subclass__()


class Invoker(Component):
    """Where a system is entered: applications call its methods, which send commands and queries.

    ``bundle.invoker(OrderInvoker)`` returns the object to call.
    """

    __evento_role__ = Role.INVOKER

    _evento_runtime: InvocationRuntime | None = None

    def __init_subclass__(cls, *, abstract: bool = False, **unknown: Never) -> None:
        define_component(cls, abstract=abstract, options={}, unknown=unknown)
        super().__init_subclass__()

    @property
    def commands(self) -> CommandGateway:
        """The command gateway; raises :class:`EventoError` outside an invocation."""
        return _invocation_of(self, "commands").commands

    @property
    def queries(self) -> QueryGateway:
        """The query gateway; raises :class:`EventoError` outside an invocation."""
        return _invocation_of(self, "queries").queries


def _invocation_of(invoker: Invoker, gateway: str) -> InvocationRuntime:
    runtime = runtime_of(invoker)
    handling = current_handling()
    if handling is None or not isinstance(handling.message, InvocationMessage):
        name = type(invoker).__name__
        raise EventoError(
            f"{name}.{gateway} works only while a method marked with @invocation_handler runs: mark the method that "
            "applications call",
            invoker=name,
        )
    return runtime
