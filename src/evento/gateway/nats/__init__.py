"""The message gateway between processes, on NATS."""

from evento.gateway.nats.clock import ClusterClock
from evento.gateway.nats.connection import Delivery, NatsConnection, NoResponders, Subscription
from evento.gateway.nats.subjects import QUEUE, Subjects, token, untoken

__all__ = [
    "QUEUE",
    "ClusterClock",
    "Delivery",
    "NatsConnection",
    "NoResponders",
    "Subjects",
    "Subscription",
    "token",
    "untoken",
]
