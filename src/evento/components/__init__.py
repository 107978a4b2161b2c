"""Components: the seven base classes, the handler decorators and the frozen definitions made from them."""

from evento.components.analysis import Send, Sends, sends_of
from evento.components.bases import (
    Aggregate,
    Component,
    Invoker,
    Observer,
    Projection,
    Projector,
    Saga,
    Service,
)
from evento.components.confinement import ConfinementProblem, confinement_problems
from evento.components.decorators import (
    aggregate_command_handler,
    command_handler,
    event_handler,
    event_sourcing_handler,
    invocation_handler,
    query_handler,
    saga_event_handler,
)
from evento.components.definition import (
    ComponentDefinition,
    HandlerDefinition,
    HandlerKind,
    Injectable,
    Injection,
    Parameter,
    Role,
)
from evento.components.injectables import FencingToken, ProjectorStatus
from evento.components.inspection import component_definition
from evento.components.invocation import InvocationRuntime
from evento.components.running import HandlerCall, HandlerRunner, Interceptor
from evento.components.states import AggregateState, SagaState
from evento.components.tracing import TracingAgent, track

__all__ = [
    "Aggregate",
    "AggregateState",
    "Component",
    "ComponentDefinition",
    "ConfinementProblem",
    "FencingToken",
    "HandlerCall",
    "HandlerDefinition",
    "HandlerKind",
    "HandlerRunner",
    "Injectable",
    "Injection",
    "Interceptor",
    "InvocationRuntime",
    "Invoker",
    "Observer",
    "Parameter",
    "Projection",
    "Projector",
    "ProjectorStatus",
    "Role",
    "Saga",
    "SagaState",
    "Send",
    "Sends",
    "Service",
    "TracingAgent",
    "aggregate_command_handler",
    "command_handler",
    "component_definition",
    "confinement_problems",
    "event_handler",
    "event_sourcing_handler",
    "invocation_handler",
    "query_handler",
    "saga_event_handler",
    "sends_of",
    "track",
]
