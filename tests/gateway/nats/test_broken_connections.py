"""Random cuts, kills and pauses under load: whatever happens, everyone gets an answer in time and nothing is left."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from cluster_worker import Stalls
from nats_server import NatsServer, nats_server
from tcp_proxy import TcpProxy, tcp_proxy
from waiting import eventually

from evento import EventoError
from evento.gateway import RequestSender
from evento.gateway.nats import NatsBus, NatsConnection
from evento.messages import Metadata, Reply, Request, new_id

SECONDS = float(os.environ.get("EVENTO_CHAOS_SECONDS", "4"))
TIMEOUT = 2.0
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(60 + SECONDS)]


def command(number: int) -> Request:
    id = new_id()
    return Request("command", "A", b"%d" % number, Metadata(), id, id, None, 1)


async def handle(request: Request, deadline: float) -> Reply:
    if int(request.payload) % 10 == 0:
        await asyncio.sleep(random.uniform(0, 0.3))
    return Reply(view=request.payload)


async def harm(
    servers: list[NatsServer], proxies: list[TcpProxy], dice: random.Random, is_enough: Callable[[], bool]
) -> None:
    """Do something bad every now and then, for longer where it is not enough yet; all servers run at the end."""
    end = asyncio.get_running_loop().time() + SECONDS
    while asyncio.get_running_loop().time() < end or not is_enough():
        await asyncio.sleep(dice.uniform(0.05, 0.3))
        deed = dice.choice(["cut", "cut", "cut", "refuse", "kill", "pause"])
        if deed == "cut":
            dice.choice(proxies).cut()
        elif deed == "refuse":
            proxy = dice.choice(proxies)
            proxy.cut(refuse=True)
            await asyncio.sleep(dice.uniform(0, 0.5))
            proxy.refusing = False
        else:
            server = dice.choice(servers)
            if deed == "pause":
                server.pause()
                await asyncio.sleep(dice.uniform(0, 0.5))
                server.go_on()
            else:
                await server.kill()
                await asyncio.sleep(dice.uniform(0, 0.5))
                await server.start()


@pytest.mark.parametrize("seed", [1, 2])
async def test_everyone_gets_an_answer_in_time_and_nothing_is_left(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    loop = asyncio.get_running_loop()
    outcomes: Counter[str] = Counter()
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(nats_server(tmp_path))]
        proxies = [await stack.enter_async_context(tcp_proxy(servers[0].port)) for _ in range(3)]
        connections = []
        for proxy in proxies:
            connection = NatsConnection(
                proxy.url, cluster="test", user="shop", instance=new_id(), ping_interval=0.2, connect_timeout=0.5
            )
            connections.append(await stack.enter_async_context(connection))
        sending, *handling = [await stack.enter_async_context(NatsBus(each)) for each in connections]
        for bus in handling:
            await bus.serve("command", "A", handle)
        sender = RequestSender(sending)
        stopping = asyncio.Event()

        async def call(first: int) -> None:
            number = first
            while not stopping.is_set():
                began, stalled = loop.time(), stalls.total
                try:
                    reply = await sender.request(command(number), TIMEOUT)
                    assert reply.view == b"%d" % number
                    outcomes["answered"] += 1
                except EventoError as error:
                    outcomes[type(error).__name__] += 1
                assert loop.time() - began - (stalls.total - stalled) < TIMEOUT + 1
                number += 20

        stalls = Stalls()
        watching = asyncio.create_task(stalls.watch())
        callers = [asyncio.create_task(call(first)) for first in range(20)]
        await harm(servers, proxies, dice, lambda: outcomes["answered"] > 100)
        healed = loop.time()
        stopping.set()
        await asyncio.gather(*callers)
        watching.cancel()
        await asyncio.wait({watching})
        assert (await sender.request(command(1), 30.0)).view == b"1"
        assert loop.time() - healed < 30

        await eventually(lambda: not any(bus.receiver.running for bus in handling))
        for connection in connections:
            assert connection.in_flight == 0
            assert not connection._waiting
        assert outcomes["answered"] > 100, outcomes
        assert set(outcomes) <= {"answered", "RequestTimeout", "HandlerNotFound"}, outcomes
