"""The engines behind projectors, sagas and observers, and the store where they keep their place."""

from evento.consumers.port import (
    Checkpoint,
    CheckpointTransaction,
    ConsumerId,
    ConsumerLease,
    ConsumerStateStore,
    DeadEvent,
    StoredConsumer,
)
from evento.consumers.sqlalchemy_store import SqlConsumerStateStore

__all__ = [
    "Checkpoint",
    "CheckpointTransaction",
    "ConsumerId",
    "ConsumerLease",
    "ConsumerStateStore",
    "DeadEvent",
    "SqlConsumerStateStore",
    "StoredConsumer",
]
