"""A whole system in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TypedDict

from typing_extensions import Unpack

from evento.bundle import ConsumerExecutor, EventoBundle, ThreadExecutor
from evento.bundle.bundle import OnStarted
from evento.bundle.injector import Injector
from evento.components import Interceptor, TracingAgent

__all__ = ["BundleOptions", "embedded"]


class BundleOptions(TypedDict, total=False):
    """The options of :class:`~evento.EventoBundle` that make sense in memory."""

    version: int
    injector: Injector
    consumer_state_store: str | None
    contexts: Mapping[type, Sequence[str]] | None
    tracing: TracingAgent | None
    interceptors: Sequence[Interceptor]
    executors: Iterable[ThreadExecutor | ConsumerExecutor]
    sss_fetch_size: int
    sss_fetch_delay: timedelta
    handler_grace: float
    max_in_flight_requests: int
    max_concurrent_handlers: int
    max_payload_bytes: int
    strict_confinement: bool
    description: str
    detail: str
    repository_url: str
    line_prefix: str
    on_started: OnStarted | None
    state_cache_size: int
    state_cache_expiry: timedelta


@asynccontextmanager
async def embedded(
    *,
    components: Sequence[type] = (),
    packages: Sequence[str] = (),
    bundle_id: str = "test",
    **options: Unpack[BundleOptions],
) -> AsyncIterator[EventoBundle]:
    """Run a whole system in memory: yield a started bundle, and leave nothing behind.

    ::

        async with embedded(components=[OrderAggregate, OrderProjector], injector={Orders: orders}) as system:
            await system.commands.send(OrderPlaceCommand("ORD_1", "ann"))
            await system.consumers_caught_up()

    :param options: those of :class:`~evento.EventoBundle`; ``$EVENTO_SERVER`` is not looked at.
    """
    bundle = EventoBundle(bundle_id, components=components, packages=packages, server="embedded:", **options)
    async with bundle:
        yield bundle
