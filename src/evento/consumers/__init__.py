"""The engines behind projectors, sagas and observers, and the store where they keep their place."""

from evento.consumers.administration import ConsumerAdministration
from evento.consumers.consumer import Consumer
from evento.consumers.failures import SagaError
from evento.consumers.group import ConsumerGroup
from evento.consumers.port import (
    Checkpoint,
    CheckpointTransaction,
    ConsumerId,
    ConsumerLease,
    ConsumerStateStore,
    DeadEvent,
    DeadEventFilter,
    Directions,
    SagaChange,
    StoredConsumer,
    StoredSaga,
)
from evento.consumers.sqlalchemy_store import SqlConsumerStateStore
from evento.consumers.status import ConsumerState, ConsumerStatus

__all__ = [
    "Checkpoint",
    "CheckpointTransaction",
    "Consumer",
    "ConsumerAdministration",
    "ConsumerGroup",
    "ConsumerId",
    "ConsumerLease",
    "ConsumerState",
    "ConsumerStateStore",
    "ConsumerStatus",
    "DeadEvent",
    "DeadEventFilter",
    "Directions",
    "SagaChange",
    "SagaError",
    "SqlConsumerStateStore",
    "StoredConsumer",
    "StoredSaga",
]
