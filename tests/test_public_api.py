"""What ``evento`` exports: a name that appears or disappears here is a decision, not an accident."""

import inspect

import pytest

import evento

PAYLOADS = """
    AggregateId Command DomainCommand DomainEvent Event Query ServiceCommand ServiceEvent View
"""
ENVELOPES = """
    CommandMessage EventMessage InvocationMessage Message Metadata QueryMessage
"""
COMPONENTS = """
    Aggregate AggregateState FencingToken Invoker Observer Projection Projector ProjectorStatus Saga SagaState Service
    aggregate_command_handler command_handler event_handler event_sourcing_handler invocation_handler query_handler
    saga_event_handler track
"""
BUNDLE = """
    CommandGateway ConsumerExecutor EventoBundle HandlerCall HandlerDefinition HandlerKind Interceptor QueryGateway
    ThreadExecutor TracingAgent
"""
ERRORS = """
    AggregateAlreadyInitialized AggregateDeleted AggregateNotInitialized AuthenticationError CapabilityError
    CommandRejected ConcurrencyConflict DefinitionError EventoError HandlerError HandlerNotFound LeaseLost NotFound
    Overloaded PayloadError QueryRejected ReadModelBehind RequestTimeout SchemaTooNew Stopped StoreInUse StoreMismatch
    StoreUnavailable TooManyPendingRequests TransientError WouldDeadlock
"""


def test_exactly_these_names_are_exported() -> None:
    expected = {name for group in (PAYLOADS, ENVELOPES, COMPONENTS, BUNDLE, ERRORS) for name in group.split()}

    assert set(evento.__all__) == expected


def test_exported_names_are_sorted_and_there() -> None:
    assert evento.__all__ == sorted(evento.__all__)
    assert all(hasattr(evento, name) for name in evento.__all__)


@pytest.mark.parametrize("name", evento.__all__)
def test_everything_public_is_documented(name: str) -> None:
    value = getattr(evento, name)
    if not inspect.isclass(value) and not inspect.isfunction(value):
        return  # an alias has no docstring of its own

    assert value.__doc__
    assert "__doc__" in vars(value) or inspect.isfunction(value)
    if inspect.isclass(value):
        undocumented = [
            member
            for member, attribute in vars(value).items()
            if not member.startswith("_")
            and (inspect.isfunction(attribute) or isinstance(attribute, (property, classmethod, staticmethod)))
            and not inspect.getdoc(getattr(value, member))
        ]
        assert undocumented == []
