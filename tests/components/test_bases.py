"""Component classes and the definitions that they get when they are made."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

import pytest
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from evento import (
    Aggregate,
    AggregateId,
    AggregateState,
    CommandGateway,
    CommandMessage,
    DefinitionError,
    DomainCommand,
    DomainEvent,
    EventMessage,
    FencingToken,
    HandlerDefinition,
    HandlerKind,
    Invoker,
    Message,
    Metadata,
    Observer,
    Projection,
    Projector,
    ProjectorStatus,
    Query,
    QueryGateway,
    QueryMessage,
    Saga,
    SagaState,
    Service,
    ServiceCommand,
    ServiceEvent,
    View,
    aggregate_command_handler,
    command_handler,
    event_handler,
    event_sourcing_handler,
    invocation_handler,
    query_handler,
    saga_event_handler,
    track,
)
from evento.components import ComponentDefinition, Injectable, Role, component_definition


class OpenCommand(DomainCommand["OpenedEvent"]):
    account_id: AggregateId


class CloseCommand(DomainCommand):
    account_id: AggregateId


class OpenedEvent(DomainEvent):
    account_id: str


class ClosedEvent(DomainEvent):
    account_id: str


class LockedEvent(DomainEvent):
    account_id: str


class NotifyCommand(ServiceCommand):
    account_id: str


class NotifiedEvent(ServiceEvent):
    account_id: str


class AccountView(View):
    account_id: str


class FindAccount(Query[AccountView]):
    account_id: str


class ListAccounts(Query[list[AccountView]]):
    pass


class AccountState(AggregateState):
    open: bool = False


class FollowState(SagaState):
    steps: int = 0


class Account(Aggregate[AccountState], snapshot_frequency=100, snapshot_version=2):
    """Accounts.

    Of customers.
    """

    @aggregate_command_handler(init=True, executor="threads")
    def open(self, command: OpenCommand) -> OpenedEvent:
        """Open an account."""
        return OpenedEvent(command.account_id)

    @event_sourcing_handler
    def on_opened(self, event: OpenedEvent) -> AccountState:
        return AccountState(open=True)

    @aggregate_command_handler
    async def close(
        self,
        command: CloseCommand,
        at: datetime,
        commands: CommandGateway,
        state: AccountState | None,
        message: CommandMessage[CloseCommand],
        metadata: Metadata,
    ) -> ClosedEvent | LockedEvent:
        return ClosedEvent(command.account_id)

    @event_sourcing_handler()
    def on_closed(self, event: ClosedEvent, state: AccountState, *, message: EventMessage) -> None:
        state.deleted = True


class Accounts(Projector, version=3, wait_for_head_reached=True, contexts=("eu", "us-*")):
    @event_handler(retry=-1, retry_delay=timedelta(seconds=2))
    async def on_opened(
        self,
        event: OpenedEvent,
        queries: QueryGateway,
        status: ProjectorStatus,
        connection: AsyncConnection,
        session: AsyncSession,
    ) -> None: ...

    @event_handler(executor="lanes")
    async def on_notified(self, event: NotifiedEvent) -> None: ...


class AccountProjection(Projection, projectors=(Accounts,)):
    @query_handler
    async def find(self, query: FindAccount, message: QueryMessage[FindAccount]) -> AccountView:
        return AccountView(query.account_id)

    @query_handler
    def all(self, query: ListAccounts, queries: QueryGateway) -> list[AccountView]:
        return []


class Notifications(Service):
    @command_handler
    async def notify(
        self, command: NotifyCommand, token: FencingToken | None, message: Message[Any]
    ) -> NotifiedEvent | None:
        return None


class Follow(Saga[FollowState], version=1):
    @saga_event_handler(init=True, association_property="account_id", retry=5)
    async def on_opened(self, event: OpenedEvent, state: FollowState | None) -> FollowState:
        return state or FollowState()

    @saga_event_handler(association_property="account_id")
    async def on_closed(
        self, event: ClosedEvent, state: FollowState, commands: CommandGateway, queries: QueryGateway
    ) -> None:
        state.end()


class Watch(Observer, version=2):
    @event_handler
    def on_opened(self, event: OpenedEvent, commands: CommandGateway, queries: QueryGateway) -> None: ...


class Bank(Invoker):
    @invocation_handler
    @track
    async def open(self, account_id: str, *, notify: bool = False) -> str:
        """Open an account for a customer."""
        return account_id


def handlers(cls: type) -> dict[str, HandlerDefinition]:
    return {handler.name: handler for handler in component_definition(cls).handlers}


def injected(handler: HandlerDefinition) -> list[Injectable]:
    return [parameter.injectable for parameter in handler.parameters]


@pytest.mark.parametrize(
    ("cls", "role", "options"),
    [
        (Account, Role.AGGREGATE, {"state": AccountState, "snapshot_frequency": 100, "snapshot_version": 2}),
        (Notifications, Role.SERVICE, {"state": None, "snapshot_frequency": -1, "snapshot_version": 1}),
        (Accounts, Role.PROJECTOR, {"version": 3, "wait_for_head_reached": True, "contexts": ("eu", "us-*")}),
        (AccountProjection, Role.PROJECTION, {"projectors": (Accounts,)}),
        (Follow, Role.SAGA, {"state": FollowState, "version": 1, "contexts": ("*",)}),
        (Watch, Role.OBSERVER, {"version": 2, "contexts": ("*",), "wait_for_head_reached": False}),
        (Bank, Role.INVOKER, {"projectors": ()}),
    ],
)
def test_a_component_has_its_role_and_options(cls: type, role: Role, options: dict[str, object]) -> None:
    definition = component_definition(cls)

    assert (definition.role, definition.cls, definition.name) == (role, cls, cls.__name__)
    assert {name: getattr(definition, name) for name in options} == options
    assert definition.source.file == __file__
    assert definition.source.line > 0


def test_descriptions_are_the_docstrings() -> None:
    assert component_definition(Account).description == "Accounts.\n\nOf customers."
    assert handlers(Account)["open"].description == "Open an account."
    assert handlers(Bank)["open"].description == "Open an account for a customer."
    assert component_definition(Watch).description == ""


def test_handlers_are_listed_in_their_order_with_what_the_hints_say() -> None:
    found = handlers(Account)

    assert list(found) == ["open", "on_opened", "close", "on_closed"]
    assert [handler.kind for handler in found.values()] == [
        HandlerKind.AGGREGATE_COMMAND,
        HandlerKind.EVENT_SOURCING,
        HandlerKind.AGGREGATE_COMMAND,
        HandlerKind.EVENT_SOURCING,
    ]
    assert [handler.payload for handler in found.values()] == [OpenCommand, OpenedEvent, CloseCommand, ClosedEvent]
    assert [handler.is_async for handler in found.values()] == [False, False, True, False]
    assert [handler.init for handler in found.values()] == [True, False, False, False]
    assert found["open"].executor == "threads"
    assert found["open"].results == (OpenedEvent,)
    assert found["close"].results == (ClosedEvent, LockedEvent)
    assert found["open"].id == "Account.open"
    assert found["open"].payload_name == "OpenCommand"


def test_further_parameters_are_injected_by_type_in_any_order() -> None:
    assert injected(handlers(Account)["close"]) == [
        Injectable.TIMESTAMP,
        Injectable.COMMANDS,
        Injectable.STATE,
        Injectable.MESSAGE,
        Injectable.METADATA,
    ]
    assert injected(handlers(Accounts)["on_opened"]) == [
        Injectable.QUERIES,
        Injectable.STATUS,
        Injectable.CONNECTION,
        Injectable.SESSION,
    ]
    assert injected(handlers(Notifications)["notify"]) == [Injectable.FENCING_TOKEN, Injectable.MESSAGE]
    assert injected(handlers(AccountProjection)["all"]) == [Injectable.QUERIES]
    assert injected(handlers(Follow)["on_closed"]) == [Injectable.STATE, Injectable.COMMANDS, Injectable.QUERIES]
    assert [parameter.keyword_only for parameter in handlers(Account)["on_closed"].parameters] == [False, True]


def test_return_hints_give_the_results() -> None:
    assert handlers(AccountProjection)["find"].results == (AccountView,)
    assert handlers(AccountProjection)["all"].results == (AccountView,)
    notify = handlers(Notifications)["notify"]
    assert (notify.results, notify.returns_none) == ((NotifiedEvent,), True)


def test_options_of_decorators() -> None:
    blocking, parallel = component_definition(Accounts).handlers
    assert (blocking.retry, blocking.retry_delay, blocking.executor) == (-1, timedelta(seconds=2), None)
    assert (parallel.retry, parallel.retry_delay, parallel.executor) == (3, timedelta(seconds=1), "lanes")
    init, _ = component_definition(Follow).handlers
    assert (init.init, init.association_property, init.retry) == (True, "account_id", 5)


def test_invocations_are_named_after_class_and_method() -> None:
    handler = handlers(Bank)["open"]
    assert (handler.kind, handler.payload, handler.payload_name) == (HandlerKind.INVOCATION, None, "Bank::open")
    assert handler.tracked
    assert handler.is_async
    assert component_definition(Bank).handler_for(HandlerKind.INVOCATION, "Bank::open") is handler


def test_a_handler_is_found_by_kind_and_wire_name() -> None:
    definition = component_definition(Account)
    assert definition.handler_for(HandlerKind.EVENT_SOURCING, "OpenedEvent") is handlers(Account)["on_opened"]
    assert definition.handler_for(HandlerKind.EVENT, "OpenedEvent") is None
    assert definition.handlers_of(HandlerKind.AGGREGATE_COMMAND) == (
        handlers(Account)["open"],
        handlers(Account)["close"],
    )


def test_bound_handlers_receive_what_their_parameters_say() -> None:
    class Source:
        state = AccountState()
        message = "the message"

    state = Source.state
    handlers(Account)["on_closed"].bind(Account())(ClosedEvent("A_1"), Source())
    assert state.deleted
    assert handlers(Account)["on_opened"].bind(Account())(OpenedEvent("A_1"), Source()) == AccountState(open=True)


class Template(Projector, abstract=True, version=4, contexts=("eu",)):
    @event_handler(retry=7)
    async def on_opened(self, event: OpenedEvent) -> None: ...

    @event_handler
    async def on_closed(self, event: ClosedEvent) -> None: ...


class TestInheritance:
    def test_inherited_handlers_and_class_keywords_count(self) -> None:
        class Derived(Template):
            @event_handler
            async def on_locked(self, event: LockedEvent) -> None: ...

        definition = component_definition(Derived)
        assert [handler.name for handler in definition.handlers] == ["on_opened", "on_closed", "on_locked"]
        assert {handler.component for handler in definition.handlers} == {"Derived"}
        assert (definition.version, definition.contexts) == (4, ("eu",))

    def test_given_class_keywords_win(self) -> None:
        class Derived(Template, version=5):
            pass

        assert (component_definition(Derived).version, component_definition(Derived).contexts) == (5, ("eu",))

    def test_an_override_without_decorator_stays_the_handler_that_it_was(self) -> None:
        class Derived(Template):
            async def on_opened(self, event: OpenedEvent, metadata: Metadata) -> None:  # type: ignore[override]
                """Mine."""

        handler = handlers(Derived)["on_opened"]
        assert (handler.retry, handler.description) == (7, "Mine.")
        assert injected(handler) == [Injectable.METADATA]

    def test_an_override_with_decorator_has_its_own_options(self) -> None:
        class Derived(Template):
            @event_handler(retry=0)
            async def on_opened(self, event: OpenedEvent) -> None: ...

        assert handlers(Derived)["on_opened"].retry == 0

    def test_none_removes_an_inherited_handler(self) -> None:
        class Derived(Template):
            on_opened = None  # type: ignore[assignment]

        assert list(handlers(Derived)) == ["on_closed"]

    def test_mixins_bring_handlers(self) -> None:
        class Mixin:
            @event_handler
            async def on_locked(self, event: LockedEvent) -> None: ...

        class Derived(Mixin, Observer, version=1):
            pass

        assert list(handlers(Derived)) == ["on_locked"]

    def test_a_component_may_derive_from_a_component(self) -> None:
        class Derived(Accounts):
            pass

        assert component_definition(Derived).version == 3
        assert component_definition(Derived) != component_definition(Accounts)

    def test_an_abstract_class_is_no_component(self) -> None:
        with pytest.raises(DefinitionError, match="Template is abstract"):
            component_definition(Template)


S = TypeVar("S", bound=AccountState)
C = TypeVar("C", bound=DomainCommand[Any])


class GenericBase(Aggregate[S], Generic[C, S], abstract=True):
    @aggregate_command_handler
    def handle(self, command: C, state: S) -> ClosedEvent:
        return ClosedEvent("")


class GenericMiddle(GenericBase[C, AccountState], Generic[C], abstract=True):
    pass


class GenericAccount(GenericMiddle[CloseCommand]):
    pass


class StringAccount(Aggregate["AccountState"]):
    @aggregate_command_handler
    def handle(self, command: "CloseCommand", state: "AccountState") -> "ClosedEvent":  # noqa: UP037
        return ClosedEvent("")


def test_type_arguments_are_found_through_generic_bases() -> None:
    definition = component_definition(GenericAccount)
    assert definition.state is AccountState
    assert definition.handlers[0].payload is CloseCommand
    assert injected(definition.handlers[0]) == [Injectable.STATE]


def test_strings_name_types_as_well() -> None:
    assert component_definition(StringAccount).state is AccountState


def test_everything_may_be_local_to_a_function() -> None:
    class Part(Struct):
        number: int

    class LocalCommand(DomainCommand["LocalEvent"]):
        local_id: AggregateId
        part: Part

    class LocalEvent(DomainEvent):
        part: Part

    class LocalState(AggregateState):
        parts: list[Part] = []

    class LocalAggregate(Aggregate[LocalState]):
        @aggregate_command_handler
        def handle(self, command: LocalCommand, state: LocalState) -> LocalEvent:
            return LocalEvent(command.part)

        @event_sourcing_handler
        def on(self, event: LocalEvent, state: LocalState) -> LocalState:
            return state

    definition = component_definition(LocalAggregate)
    assert definition.name == "LocalAggregate"
    assert definition.state is LocalState
    assert [handler.payload for handler in definition.handlers] == [LocalCommand, LocalEvent]


def test_hints_may_name_nested_classes_and_the_class_itself() -> None:
    class Nested(Observer, version=1):
        class Inner(ServiceEvent):
            pass

        @event_handler
        async def on_inner(self, event: Inner) -> None: ...

        @event_handler
        async def on_named(self, event: Nested.Other) -> None: ...

        class Other(ServiceEvent):
            pass

    assert [handler.payload for handler in component_definition(Nested).handlers] == [Nested.Inner, Nested.Other]


def test_a_component_may_be_a_dataclass() -> None:
    @dataclass(slots=True)
    class Kept(Observer, version=7):
        commands: CommandGateway

        @event_handler
        async def on_opened(self, event: OpenedEvent) -> None: ...

    definition = component_definition(Kept)
    assert (definition.cls, definition.version) == (Kept, 7)


def test_other_class_attributes_are_left_alone() -> None:
    class Proxy:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("not now")

    class Holding(Observer, version=1):
        proxy = Proxy()
        constant = 5

        @event_handler
        async def on_opened(self, event: OpenedEvent) -> None: ...

        @property
        def name(self) -> str:
            return ""

        @classmethod
        def make(cls) -> None: ...

    assert list(handlers(Holding)) == ["on_opened"]


def test_a_class_does_not_keep_the_values_around_it_alive() -> None:
    class Resource:
        pass

    def make() -> tuple[type, weakref.ref[Resource]]:
        resource = Resource()

        class Local(Observer, version=1):
            @event_handler
            async def on_opened(self, event: OpenedEvent) -> None: ...

        return Local, weakref.ref(resource)

    cls, resource = make()
    gc.collect()
    assert resource() is None
    assert component_definition(cls).name == "Local"


def test_a_class_keeps_its_definition_to_itself() -> None:
    definition = component_definition(Account)
    assert isinstance(definition, ComponentDefinition)
    with pytest.raises(AttributeError):
        definition.version = 2  # type: ignore[misc]
    with pytest.raises(DefinitionError, match="int is not a component"):
        component_definition(int)
