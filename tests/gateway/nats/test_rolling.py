"""Replicas that come and go in turn lose no request, wherever they are.

With replicas on two NATS servers, one of which has not heard of the other's replica yet when its own one leaves, NATS
drops what is on its way there; the sender finds out and sends again. ``EVENTO_ROLLING_TURNS=200``
meets that often.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from nats_server import joined

from evento.gateway.nats import NatsBus, NatsConnection
from evento.messages import Reply, Request, new_id
from evento.testing.conformance.message_bus import request_of, soon

TURNS = int(os.environ.get("EVENTO_ROLLING_TURNS", "10"))


@pytest.mark.parametrize("nodes", [(0, 0, 0), (0, 1, 1), (0, 0, 1)])
@pytest.mark.timeout(60 + TURNS)
async def test_a_rolling_restart_of_the_replicas_loses_no_request(tmp_path: Path, nodes: tuple[int, int, int]) -> None:
    async def handle(request: Request, deadline: float) -> Reply:
        await asyncio.sleep(0.002)
        return Reply(view=request.payload)

    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(node) for node in joined(tmp_path, 2)]
        buses = []
        for node in nodes:
            connection = NatsConnection(servers[node].url, cluster="test", user="shop", instance=new_id())
            buses.append(NatsBus(await stack.enter_async_context(connection), handler_grace=20))
        sending, *replicas = buses
        for bus in replicas[::-1]:  # the last one is on the other server, if any is
            await bus.serve("query", "A", handle)
            await sending.request(request_of("A", kind="query"), soon())
        stopping = asyncio.Event()

        async def ask() -> int:
            answered = 0
            while not stopping.is_set():
                reply = await sending.request(request_of("A", kind="query", message_id=new_id()), soon(20))
                assert reply.error is None
                answered += 1
            return answered

        async with asyncio.timeout(40 + TURNS):
            callers = [asyncio.create_task(ask()) for _ in range(20)]
            for _ in range(TURNS):
                for bus in replicas:
                    await bus.withdraw("query", "A")
                    await asyncio.sleep(0.02)
                    await bus.serve("query", "A", handle)
            stopping.set()
            assert all(await asyncio.gather(*callers))
        for bus in buses:
            await bus.close()
