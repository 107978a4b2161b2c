"""Which delivery a component gets: by its role, and by the executors that its handlers name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from evento.components import ComponentDefinition, Interceptor, Role, TracingAgent
from evento.components.counting import CountOf
from evento.consumers.delivery import Delivery, ProjectorDelivery
from evento.consumers.lanes import lanes_of
from evento.consumers.observers import ObserverDelivery
from evento.consumers.port import ConsumerId
from evento.consumers.sagas import SagaDelivery
from evento.consumers.status import Standing
from evento.gateway import CommandGateway, QueryGateway

__all__ = ["delivery_of"]


def delivery_of(
    consumer: ConsumerId,
    component: ComponentDefinition,
    instance: object,
    *,
    standing: Standing,
    head: Callable[[], int],
    commands: CommandGateway | None = None,
    queries: QueryGateway | None = None,
    tracing: TracingAgent | None = None,
    interceptors: Sequence[Interceptor] = (),
    executors: Mapping[str, Executor] | None = None,
    lanes: Mapping[str, int] | None = None,
    counts: CountOf | None = None,
) -> Delivery | ObserverDelivery:
    """Return how events reach the handlers of a projector, saga or observer.

    :param head: the head of the event store, for handlers that ask for the status of their projector.
    :param executors: pools of threads by name, for handlers with ``executor=``.
    :param lanes: how many lanes an executor has, by its name: for those that keep events of an aggregate in order.
    :param counts: where the runs of each handler are counted.
    :raises DefinitionError: an executor is not there, or one with lanes is where these cannot be.
    """
    common: dict[str, Any] = {
        "standing": standing,
        "commands": commands,
        "queries": queries,
        "tracing": tracing,
        "interceptors": interceptors,
        "counts": counts,
    }
    in_lanes = lanes_of(component, lanes or {})
    if component.role is Role.SAGA:
        return SagaDelivery(consumer, component, instance, **common)
    if component.role is Role.OBSERVER or in_lanes:
        return ObserverDelivery(consumer, component, instance, head=head, lanes=in_lanes, executors=executors, **common)
    return ProjectorDelivery(consumer, component, instance, head=head, executors=executors, **common)
