"""The decorators mark methods and leave them as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from evento import (
    DefinitionError,
    aggregate_command_handler,
    command_handler,
    event_handler,
    event_sourcing_handler,
    invocation_handler,
    query_handler,
    saga_event_handler,
)
from evento.components import HandlerKind
from evento.components.decorators import HandlerMark, mark_of

KINDS: dict[Callable[..., Any], HandlerKind] = {
    aggregate_command_handler: HandlerKind.AGGREGATE_COMMAND,
    event_sourcing_handler: HandlerKind.EVENT_SOURCING,
    command_handler: HandlerKind.COMMAND,
    query_handler: HandlerKind.QUERY,
    event_handler: HandlerKind.EVENT,
    saga_event_handler: HandlerKind.SAGA_EVENT,
    invocation_handler: HandlerKind.INVOCATION,
}


@pytest.mark.parametrize("decorator", KINDS, ids=lambda one: one.__name__)
def test_bare_and_called_are_the_same(decorator: Callable[..., Any]) -> None:
    async def bare(self: object) -> None: ...

    async def called(self: object) -> None: ...

    assert mark_of(decorator(bare)) == mark_of(decorator()(called)) == HandlerMark(KINDS[decorator])


@pytest.mark.parametrize("decorator", [one for one in KINDS if one is not invocation_handler])
def test_the_method_itself_comes_back(decorator: Callable[..., Any]) -> None:
    def method(self: object) -> None: ...

    assert decorator(method) is method


def test_options_are_noted() -> None:
    def method(self: object) -> None: ...

    saga_event_handler(association_property="key", init=True, retry=0, retry_delay=timedelta(0))(method)
    assert mark_of(method) == HandlerMark(
        HandlerKind.SAGA_EVENT, init=True, retry=0, retry_delay=timedelta(0), association_property="key"
    )


def test_a_wrapper_of_a_user_stays_marked() -> None:
    @functools.wraps(command_handler(lambda self: None))
    def wrapper(self: object) -> None: ...

    assert mark_of(wrapper) == HandlerMark(HandlerKind.COMMAND)


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(DefinitionError, match="@query_handler marks methods, not"):
        query_handler(property(lambda self: None))  # type: ignore[call-overload]


def test_sagas_have_no_executor() -> None:
    with pytest.raises(TypeError):
        saga_event_handler(association_property="key", executor="threads")  # type: ignore[call-overload]


def test_handlers_that_yield_are_refused() -> None:
    with pytest.raises(DefinitionError, match=r"method \(.*test_decorators.py:\d+\): a handler cannot yield"):

        @event_handler
        async def method(self: object) -> Any:
            yield 1
