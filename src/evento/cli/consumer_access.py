"""What ``evento consumers`` works on: the stores of a system on this machine, or the instances of a cluster."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

from evento.cli.cluster import cluster_address
from evento.cli.cluster_consumers import ClusterConsumers, cluster_consumers
from evento.cli.errors import CommandFailed
from evento.cli.locations import check_schema, consumer_state_url, open_store
from evento.consumers import ConsumerAdministration, ConsumerId, ConsumerStatus, SqlConsumerStateStore
from evento.consumers.administration import lag_seconds, stored_status
from evento.errors import NotFound
from evento.state_store import StateStore

__all__ = ["Administration", "Consumers", "open_consumers"]


@dataclass(frozen=True)
class StoredConsumers:
    """Consumers as the event store and the consumer state that belongs to it tell, whether a bundle runs or not."""

    events: StateStore
    state: SqlConsumerStateStore
    bundle: str | None

    @property
    def administration(self) -> ConsumerAdministration:
        """Where everything is asked for: it is written down, and a running bundle looks for it."""

        async def notify() -> None:
            """Do nothing: a running bundle looks for itself."""

        return ConsumerAdministration(self.state, known=self._known, status=self.status, notify=notify)

    async def _known(self) -> Sequence[ConsumerId]:
        return [consumer for consumer in await self.state.consumers() if self.bundle in (None, consumer.bundle)]

    async def status(self, consumer: ConsumerId) -> ConsumerStatus:
        """Return where a consumer stands, unless the two stores do not belong together."""
        stored = await self.state.load(consumer)
        if stored is None:
            raise NotFound(f"{consumer} is not there any more")
        checkpoint = stored.checkpoint
        if (checkpoint.store_id, checkpoint.epoch) != (self.events.store_id, self.events.epoch):
            raise CommandFailed(
                f"{consumer} has read another event store (store {checkpoint.store_id}, epoch {checkpoint.epoch}) than "
                f"this one (store {self.events.store_id}, epoch {self.events.epoch}): name the two that belong together"
            )
        status = stored_status(consumer, stored, head=await self.events.head())
        return replace(status, lag_seconds=await lag_seconds(self.events, consumer, status.position))

    async def is_running(self, consumer: ConsumerId) -> bool:
        """Whether a bundle works for the consumer now."""
        stored = await self.state.load(consumer)
        return stored is not None and stored.leased


Consumers: TypeAlias = StoredConsumers | ClusterConsumers
Administration: TypeAlias = ConsumerAdministration | ClusterConsumers


def open_consumers(arguments: argparse.Namespace, *, read_only: bool) -> AbstractAsyncContextManager[Consumers]:
    """Return the consumers that the command line is about; they are opened by ``async with``."""
    check_schema(arguments)
    address = cluster_address(arguments)
    if address is not None:
        if arguments.consumers is not None:
            raise CommandFailed("--consumers belongs to --store: servers ask the bundles that run")
        return cluster_consumers(arguments, address)
    return _stored_consumers(arguments, read_only=read_only)


@asynccontextmanager
async def _stored_consumers(arguments: argparse.Namespace, *, read_only: bool) -> AsyncIterator[Consumers]:
    events = open_store(arguments)
    url = consumer_state_url(arguments)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(events)
        state = SqlConsumerStateStore(url, existing=True, read_only=read_only)
        yield StoredConsumers(store, await stack.enter_async_context(state), arguments.bundle)
