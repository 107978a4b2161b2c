"""The message gateway between processes, on NATS."""

from evento.gateway.nats.bus import NatsBus
from evento.gateway.nats.clock import ClusterClock
from evento.gateway.nats.connection import Delivery, NatsConnection, NoResponders, Subscription
from evento.gateway.nats.subjects import QUEUE, Subjects, token, untoken

__all__ = [
    "QUEUE",
    "ClusterClock",
    "Delivery",
    "NatsBus",
    "NatsConnection",
    "NoResponders",
    "Subjects",
    "Subscription",
    "token",
    "untoken",
]
