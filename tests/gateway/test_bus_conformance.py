"""Both buses keep what the port promises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from nats_server import nats_server

from evento.gateway import InProcessBus, MessageBus
from evento.gateway.nats import NatsBus, NatsConnection
from evento.messages import new_id
from evento.testing.conformance.message_bus import DistributedBusConformance, MessageBusConformance, NewBus


class TestInProcessBus(MessageBusConformance):
    @pytest.fixture
    def new_bus(self) -> NewBus:
        bus = InProcessBus()

        async def the_one() -> MessageBus:
            return bus

        return the_one


class TestNatsBus(DistributedBusConformance):
    @pytest.fixture
    async def new_bus(self, tmp_path: Path) -> AsyncIterator[NewBus]:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(nats_server(tmp_path))

            async def open_one() -> MessageBus:
                connection = NatsConnection(server.url, cluster="test", user="shop", instance=new_id())
                return await stack.enter_async_context(NatsBus(await stack.enter_async_context(connection)))

            yield open_one
