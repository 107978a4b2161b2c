"""With tokens no connection may answer what came over another one; the reply of a handler gets home all the same."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from guarded_gateway import Gateway
from tcp_proxy import tcp_proxy
from waiting import eventually

from evento.gateway.nats import NatsBus, NatsConnection
from evento.messages import new_id
from evento.testing.conformance.message_bus import Gate, request_of, soon


@pytest.mark.parametrize("ends", ["while disconnected", "afterwards"])
async def test_a_handler_that_lost_its_connection_answers_over_the_next(gateway: Gateway, ends: str) -> None:
    gateway.allow("orders", "A")
    gateway.allow("web")
    await gateway.server.reload()
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(tcp_proxy(gateway.settings.gateway.port))

        async def connected(user: str, url: str) -> NatsBus:
            connection = NatsConnection(url, cluster="shop", user=user, instance=new_id(), token=gateway.secrets[user])
            return await stack.enter_async_context(NatsBus(await stack.enter_async_context(connection)))

        replica = await connected("orders", proxy.url)
        sender = await connected("web", f"nats://{gateway.settings.gateway}")
        lost, back = asyncio.Event(), asyncio.Event()
        replica.connection.on_disconnect(lost.set)
        replica.connection.on_reconnect(back.set)
        gate = Gate()
        await replica.serve("command", "A", gate)
        waiting = asyncio.create_task(sender.request(request_of("A"), soon()))
        await gate.until(entered=1)
        proxy.cut(refuse=True)
        await lost.wait()
        if ends == "while disconnected":
            gate.open()
            await eventually(lambda: replica.receiver.running == 0)
        proxy.refusing = False
        await back.wait()
        gate.open()

        assert (await waiting).view == b"opened"
        assert len(gate.requests) == 1
