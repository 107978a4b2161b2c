"""Which answer to a command is the last word when more than one run can give one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace
from nats_server import Connect, NatsServer, nats_server
from tcp_proxy import TcpProxy, tcp_proxy
from waiting import eventually

from evento.errors import AuthenticationError, CommandRejected, EventoError, Overloaded, error_from_data, error_to_data
from evento.gateway.nats import NatsBus, NatsConnection
from evento.messages import Reply, Request, new_id
from evento.testing.conformance.message_bus import RECORD, Gate, request_of, soon


class Deciding(Gate):
    """A handler that answers what it was told, once its gate is open."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self._reply = reply

    async def __call__(self, request: Request, deadline: float) -> Reply:
        await super().__call__(request, deadline)
        return self._reply

    @property
    def attempts(self) -> list[int]:
        return [request.attempt for request in self.requests]


def failing(error: EventoError) -> Deciding:
    return Deciding(Reply(error=error_to_data(error)))


class Handover:
    """One replica runs the first attempt, another one what comes after it: the sender's connection was cut between."""

    def __init__(self, first: NatsBus, second: NatsBus, sender: NatsBus, proxy: TcpProxy) -> None:
        self.first = first
        self.second = second
        self.sender = sender
        self.proxy = proxy

    async def send(self, request: Request, first: Deciding, second: Deciding) -> asyncio.Task[Reply]:
        """Send a request; when this returns, both replicas run it."""
        await self.first.serve(request.kind, "A", first)
        sending = asyncio.create_task(self.sender.request(request, soon()))
        await first.until(entered=1)
        await self.first.withdraw(request.kind, "A")
        await self.second.serve(request.kind, "A", second)
        self.proxy.cut()
        await second.until(entered=1)
        return sending


@pytest.fixture
async def handover(connect: Connect, server: NatsServer) -> AsyncIterator[Handover]:
    async with tcp_proxy(server.port) as proxy:
        first, second = NatsBus(await connect()), NatsBus(await connect())
        async with first, second, NatsBus(await connect(servers=proxy.url)) as sender:
            yield Handover(first, second, sender, proxy)


async def test_a_rejection_is_not_believed_while_another_run_may_store_the_event(handover: Handover) -> None:
    rejecting, storing = failing(CommandRejected("not enough money")), Deciding(Reply(event=RECORD))
    sending = await handover.send(request_of("A"), rejecting, storing)
    rejecting.open()
    await eventually(lambda: handover.second.receiver.attached == 1)  # it asks again, and waits for the other run
    storing.open()
    assert (await sending).event == RECORD
    assert (rejecting.attempts, storing.attempts) == ([1], [2])


async def test_a_rejection_of_a_run_that_knew_of_former_ones_is_the_last_word(handover: Handover) -> None:
    storing, rejecting = Deciding(Reply(event=RECORD)), failing(CommandRejected("no"))
    sending = await handover.send(request_of("A"), storing, rejecting)
    rejecting.open()
    reply = await sending
    assert reply.error is not None
    assert reply.error.definite
    assert rejecting.attempts == [2]


async def test_an_event_of_the_first_run_is_the_last_word(handover: Handover) -> None:
    storing, rejecting = Deciding(Reply(event=RECORD)), failing(CommandRejected("no"))
    sending = await handover.send(request_of("A"), storing, rejecting)
    storing.open()
    assert (await sending).event == RECORD


async def test_a_rejection_that_two_sends_waited_for_is_asked_for_once_more(
    connect: Connect, server: NatsServer
) -> None:
    """Both sends get it, and the handler runs once again: the second answer makes no third run."""
    replica = NatsBus(await connect())
    async with tcp_proxy(server.port) as proxy, replica, NatsBus(await connect(servers=proxy.url)) as sender:
        rejecting = failing(CommandRejected("no"))
        await replica.serve("command", "A", rejecting)
        sending = asyncio.create_task(sender.request(request_of("A"), soon()))
        await rejecting.until(entered=1)
        proxy.cut()
        await eventually(lambda: replica.receiver.attached == 1)
        rejecting.open()
        reply = await sending
        assert reply.error is not None
        assert reply.error.definite
        assert rejecting.attempts == [1, 3]


async def test_a_caller_who_asks_again_does_not_believe_the_run_of_his_first_time(handover: Handover) -> None:
    """The bus sent his first request twice; he gave up, and comes again with the same message id."""
    rejecting, storing = failing(CommandRejected("no")), Deciding(Reply(event=RECORD))
    first = await handover.send(request_of("A"), rejecting, storing)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await handover.second.withdraw("command", "A")
    await handover.first.serve("command", "A", rejecting)
    again = asyncio.create_task(handover.sender.request(request_of("A", attempt=2, keyed=True), soon()))
    await eventually(lambda: handover.first.receiver.attached == 1)
    await handover.first.withdraw("command", "A")
    await handover.second.serve("command", "A", storing)
    rejecting.open()
    await eventually(lambda: handover.second.receiver.attached == 1)
    storing.open()
    assert (await again).event == RECORD


async def test_a_failure_that_only_says_not_now_is_handed_out_as_not_definite(handover: Handover) -> None:
    refusing, storing = failing(Overloaded("no")), Deciding(Reply(event=RECORD))
    sending = await handover.send(request_of("A"), refusing, storing)
    refusing.open()
    reply = await sending
    assert reply.error is not None
    assert isinstance(error_from_data(reply.error), Overloaded)
    assert not reply.error.definite
    assert storing.attempts == [2]


async def test_a_query_believes_the_first_answer(handover: Handover) -> None:
    failed, answering = failing(CommandRejected("no")), Deciding(Reply(view=b"1"))
    sending = await handover.send(request_of("A", kind="query"), failed, answering)
    failed.open()
    assert (await sending).error is not None
    assert answering.attempts == [2]


@asynccontextmanager
async def _guarded(folder: Path) -> AsyncIterator[tuple[NatsServer, NatsBus, NatsBus, TcpProxy]]:
    """A replica, and a sender whose rights :func:`_users` tells."""
    async with nats_server(folder, config=_users('">"')) as nats, tcp_proxy(nats.port) as proxy:
        handling = NatsConnection(nats.url, cluster="test", user="orders", instance=new_id(), token="x")
        sending = NatsConnection(proxy.url, cluster="test", user="shop", instance=new_id(), token="x")
        async with handling, sending, NatsBus(handling) as replica, NatsBus(sending) as sender:
            yield nats, replica, sender, proxy


def _users(publish: str) -> str:
    rights = f'{{publish: {{allow: [{publish}]}}, subscribe: {{allow: [">"]}}}}'
    shop = f"{{user: shop, password: x, permissions: {rights}}}"
    return f"authorization {{users: [{shop}, {{user: orders, password: x}}]}}"


async def test_a_resend_that_is_forbidden_says_nothing_of_what_was_sent_before(tmp_path: Path) -> None:
    async with _guarded(tmp_path) as (nats, replica, sender, proxy):
        gate = Gate()
        await replica.serve("command", "A", gate)
        sending = asyncio.create_task(sender.request(request_of("A"), soon()))
        await gate.until(entered=1)
        nats.config = _users('"nothing"')
        nats.reload()
        await eventually(lambda: _is_forbidden(sender))
        proxy.cut()
        with pytest.raises(AuthenticationError) as caught:
            await sending
        assert not caught.value.definite


async def _is_forbidden(sender: NatsBus) -> bool:
    """Whether the narrower rights are in force."""
    try:
        await sender.request(replace(request_of("B"), kind="query"), soon(0.2))
    except AuthenticationError:
        return True
    except EventoError:
        return False
    return False
