"""Testing components: each kind alone, or a whole system in memory. Works with any test runner.

::

    aggregate_test(OrderAggregate).given(OrderPlacedEvent("ORD_1", "ann")).when(
        OrderCancelCommand("ORD_1")
    ).expect(OrderCancelledEvent("ORD_1"))

``given`` says what happened before, ``when`` handles one message with the code that handles it in a bundle, and
``expect...`` compares. A failed expectation is an AssertionError that shows all of it. ``when`` may be called in
``async def`` tests too: the handlers run in an event loop of their own; with ``await ....when_async(...)`` they run in
the test's.

Left out is what a bundle has around it: time (nobody waits between the attempts of a handler), other processes, and
many things at once.

Authors of adapters find a suite for each port in :mod:`evento.testing.conformance`.
"""

from evento.testing.aggregates import AggregateOutcome, AggregateTest, aggregate_test
from evento.testing.consumers import EventOutcome
from evento.testing.events import event_message
from evento.testing.projections import ProjectionOutcome, ProjectionTest, projection_test
from evento.testing.projectors import ObserverTest, ProjectorTest, observer_test, projector_test
from evento.testing.sagas import SagaOutcome, SagaTest, saga_test
from evento.testing.services import ServiceOutcome, ServiceTest, service_test
from evento.testing.systems import BundleOptions, embedded

__all__ = [
    "AggregateOutcome",
    "AggregateTest",
    "BundleOptions",
    "EventOutcome",
    "ObserverTest",
    "ProjectionOutcome",
    "ProjectionTest",
    "ProjectorTest",
    "SagaOutcome",
    "SagaTest",
    "ServiceOutcome",
    "ServiceTest",
    "aggregate_test",
    "embedded",
    "event_message",
    "observer_test",
    "projection_test",
    "projector_test",
    "saga_test",
    "service_test",
]
