"""The store service: any System State Store, served to the bundles of a cluster over the message gateway."""

from evento.server.store.counters import StoreCounters
from evento.server.store.service import StoreService

__all__ = ["StoreCounters", "StoreService"]
