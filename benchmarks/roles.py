"""What runs in the processes of the distributed benchmark, beside the one that measures: ``python roles.py ROLE ...``.

Each says ``{"ready": true}`` on stdout, answers a line of JSON with a line of JSON, and ends with its standard input:
no process outlives the one that started it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter, time_ns
from typing import Any, TypeAlias

import msgspec

from commands import OrderAggregate, OrderLineAddedEvent, run_on_fast_loop
from evento import EventMessage, EventoBundle, Projection, Projector, Query, View, event_handler, query_handler
from evento.server.server import EventoServer
from evento.server.settings import ServerSettings
from evento.server.values import Address
from sampling import Sampling
from workload import ORDERS

__all__ = ["OrderFindQuery", "OrderView"]

Answers: TypeAlias = dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]]
HEAD_TIMEOUT = 300.0


class OrderView(View):
    """What a query answers."""

    order_id: str
    total: int


class OrderFindQuery(Query[OrderView]):
    """Ask for an order."""

    order_id: str


class OrderProjection(Projection):
    """Answers at once, so that the way there and back is what is measured."""

    @query_handler
    def find(self, query: OrderFindQuery) -> OrderView:
        """Answer."""
        return OrderView(query.order_id, 1)


class IdleProjector(Projector, version=1):
    """Does nothing, but for noting when it began."""

    began = 0.0

    @event_handler
    async def on_line_added(self, event: OrderLineAddedEvent) -> None:
        """Do nothing."""
        if not IdleProjector.began:
            IdleProjector.began = perf_counter()


class FollowingProjector(Projector, version=1):
    """Notes how old each event is when it comes, in microseconds since it was decided."""

    ages: list[int] = []  # noqa: RUF012

    @event_handler
    async def on_line_added(self, event: OrderLineAddedEvent, message: EventMessage[OrderLineAddedEvent]) -> None:
        """Note it."""
        FollowingProjector.ages.append(time_ns() // 1000 - message.record.timestamp)


@asynccontextmanager
async def a_server(arguments: argparse.Namespace) -> AsyncIterator[Answers]:
    """Serve a store, as ``evento server --nats`` does."""
    store = arguments.store if arguments.store.startswith("postgresql:") else f"sqlite:{arguments.store}"
    with tempfile.TemporaryDirectory() as folder:
        settings = ServerSettings(
            cluster_name=arguments.cluster,
            nats=(arguments.nats,),
            store=store,
            data=Path(folder),
            http=Address("127.0.0.1", 0),
        )
        async with EventoServer(settings):
            yield {}


@asynccontextmanager
async def a_handler(arguments: argparse.Namespace) -> AsyncIterator[Answers]:
    """Handle commands and queries."""
    async with EventoBundle(
        "handler",
        components=[OrderAggregate, OrderProjection],
        server=arguments.nats,
        cluster=arguments.cluster,
        state_cache_size=2 * ORDERS if arguments.cached else 0,
    ):
        yield {}


@asynccontextmanager
async def a_projector(arguments: argparse.Namespace) -> AsyncIterator[Answers]:
    """Replay history into a projector, or follow the head with one."""
    folder = Path(tempfile.mkdtemp(dir=arguments.directory))
    runs = iter(range(1_000_000))
    following = AsyncExitStack()

    def bundle(component: type) -> EventoBundle:
        number = next(runs)
        return EventoBundle(
            f"projector-{number}",
            components=[component],
            server=arguments.nats,
            cluster=arguments.cluster,
            consumer_state_store=f"sqlite+aiosqlite:///{folder / str(number)}.db",
        )

    async def replay(order: dict[str, Any]) -> dict[str, Any]:
        IdleProjector.began = 0.0
        async with bundle(IdleProjector) as running:
            await running.consumers_caught_up(HEAD_TIMEOUT)
            took = perf_counter() - IdleProjector.began
            (status,) = await running.consumers.list()
            return {"events": status.position, "seconds": took}

    async def follow(order: dict[str, Any]) -> dict[str, Any]:
        running = await following.enter_async_context(bundle(FollowingProjector))
        await running.consumers_caught_up(HEAD_TIMEOUT)
        return {}

    async def forget(order: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0.2)  # the last event is on its way
        FollowingProjector.ages.clear()
        return {}

    async def leave(order: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0.2)  # the last event is on its way
        await following.aclose()
        return {"ages": sorted(FollowingProjector.ages)}

    async with following:
        yield {"replay": replay, "follow": follow, "forget": forget, "leave": leave}


ROLES: dict[str, Callable[[argparse.Namespace], AbstractAsyncContextManager[Answers]]] = {
    "server": a_server,
    "handler": a_handler,
    "projector": a_projector,
}


async def _serve(role: AbstractAsyncContextManager[Answers]) -> None:
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    sampling = Sampling()

    async def sample(order: dict[str, Any]) -> dict[str, Any]:
        sampling.start()
        return {}

    async def samples(order: dict[str, Any]) -> dict[str, Any]:
        return {"samples": sampling.stop()}

    async with role as answers:
        answers = {"sample": sample, "samples": samples, **answers}
        _say({"ready": True})
        while line := await orders.readline():
            order = msgspec.json.decode(line)
            _say(await answers[order["do"]](order))


def _say(answer: dict[str, Any]) -> None:
    os.write(1, msgspec.json.encode(answer) + b"\n")


def main() -> None:
    """Play a role until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=tuple(ROLES))
    parser.add_argument("--nats", required=True)
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--store", help="what a server serves")
    parser.add_argument("--cached", action="store_true", help="a handler keeps the states of aggregates")
    parser.add_argument("--directory", type=Path, help="where a projector keeps its place")
    arguments = parser.parse_args()
    work: Coroutine[Any, Any, None] = _serve(ROLES[arguments.role](arguments))
    run_on_fast_loop(work)


if __name__ == "__main__":
    main()
