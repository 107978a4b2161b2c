"""Requests that were lost on the way are sent again, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from nats_server import Connect, NatsServer, nats_server
from tcp_proxy import tcp_proxy
from waiting import eventually

from evento.errors import HandlerNotFound, PayloadError
from evento.gateway.nats import Delivery, NatsBus, NatsConnection
from evento.gateway.nats.subjects import QUEUE
from evento.gateway.nats.wire import MAX_NUMBERS, decode_found, decode_inquiry, encode_found, encode_inquiry
from evento.messages import Reply, Request
from evento.testing.conformance.message_bus import Gate, answering, request_of, soon


def impatient(connection: NatsConnection, **options: float) -> NatsBus:
    bus = NatsBus(connection, **options)  # type: ignore[arg-type]
    bus.inquirer.interval = 0.05
    return bus


class Hole:
    """Serves a name, and drops what comes."""

    def __init__(self, connection: NatsConnection, name: str) -> None:
        self._connection = connection
        self._subject = connection.subjects.command(name)
        self.swallowed = 0

    async def open(self) -> None:
        self._subscription = await self._connection.subscribe(self._subject, self._swallow, queue=QUEUE)

    async def close(self) -> None:
        await self._subscription.unsubscribe()

    def _swallow(self, delivery: Delivery) -> None:
        self.swallowed += 1


async def test_a_request_that_no_replica_has_is_sent_again(connect: Connect) -> None:
    replica, sender = NatsBus(await connect()), impatient(await connect())
    hole, seen = Hole(await connect(), "A"), list[Request]()
    await hole.open()
    waiting = asyncio.create_task(sender.request(request_of("A"), soon()))
    await eventually(lambda: hole.swallowed > 0)
    await hole.close()
    await replica.serve("command", "A", answering(Reply(view=b"found"), seen))
    assert (await waiting).view == b"found"
    assert [(request.attempt, request.keyed) for request in seen] == [(1 + sender.inquirer.resent, True)]
    for bus in (replica, sender):
        await bus.close()


async def test_many_at_once_travel_in_few_inquiries(connect: Connect) -> None:
    replica, sender = NatsBus(await connect()), impatient(await connect())
    hole = Hole(await connect(), "A")
    await hole.open()
    crowd = [asyncio.create_task(sender.request(request_of("A", message_id=f"m{n}"), soon())) for n in range(1000)]
    await eventually(lambda: hole.swallowed >= 1000)
    await replica.serve("command", "A", answering(Reply(view=b"found")))
    await hole.close()
    replies = await asyncio.gather(*crowd)
    assert {reply.view for reply in replies} == {b"found"}
    assert sender.inquirer.asked < 1000  # twice as many and more, if each had one of its own
    for bus in (replica, sender):
        await bus.close()


async def test_what_runs_is_not_sent_again_also_by_a_replica_that_was_withdrawn(connect: Connect) -> None:
    first, second, sender = NatsBus(await connect()), NatsBus(await connect()), impatient(await connect())
    gate = Gate()
    await first.serve("command", "A", gate)
    waiting = asyncio.create_task(sender.request(request_of("A"), soon()))
    await gate.until(entered=1)
    await second.serve("command", "A", gate)
    await first.withdraw("command", "A")
    await eventually(lambda: sender.inquirer.asked >= 4)
    assert sender.inquirer.resent == 0
    gate.open()
    assert (await waiting).view == b"opened"
    assert len(gate.requests) == 1
    for bus in (first, second, sender):
        await bus.close()


async def test_silence_is_no_reason_to_send_again(connect: Connect) -> None:
    """Replicas that are too busy to answer are not given more to do."""
    busy, sender = await connect(), impatient(await connect())
    hole = Hole(busy, "A")
    await hole.open()
    await busy.subscribe(busy.subjects.inquiry("command", "A"), lambda delivery: None)
    waiting = asyncio.create_task(sender.request(request_of("A"), soon()))
    await eventually(lambda: sender.inquirer.asked >= 6)
    assert hole.swallowed == 1
    assert sender.inquirer.resent == 0
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await sender.close()


async def test_resends_become_rare(connect: Connect) -> None:
    losing, sender = await connect(), impatient(await connect())
    hole = Hole(losing, "A")
    await hole.open()
    waiting = asyncio.create_task(sender.request(request_of("A"), soon()))
    await eventually(lambda: sender.inquirer.asked >= 14)
    assert 2 <= sender.inquirer.resent <= 3  # after 2, 4 and 8 of them
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await sender.close()


async def test_a_process_that_died_with_a_request_is_replaced(connect: Connect) -> None:
    dying = await connect()
    replica, sender = NatsBus(await connect()), impatient(await connect())
    gate = Gate()
    bus = NatsBus(dying)
    await bus.serve("command", "A", gate)
    waiting = asyncio.create_task(sender.request(request_of("A"), soon()))
    await gate.until(entered=1)
    await dying.close()
    await replica.serve("command", "A", answering(Reply(view=b"second")))
    assert (await waiting).view == b"second"
    for one in (bus, replica, sender):
        await one.close()


async def test_when_the_only_process_died_nobody_is_no_definite_answer(connect: Connect) -> None:
    dying, sender = await connect(), impatient(await connect(), handler_grace=0.1)
    gate = Gate()
    bus = NatsBus(dying)
    await bus.serve("command", "A", gate)
    waiting = asyncio.create_task(sender.request(request_of("A"), soon()))
    await gate.until(entered=1)
    await dying.close()
    with pytest.raises(HandlerNotFound) as caught:
        await waiting
    assert not caught.value.definite
    for one in (bus, sender):
        await one.close()


async def test_a_reply_that_a_lost_connection_took_along_is_made_again(connect: Connect, server: NatsServer) -> None:
    async with tcp_proxy(server.port) as proxy:
        handling, sender = await connect(servers=proxy.url), impatient(await connect())
        bus = NatsBus(handling)
        seen = list[Request]()

        async def handle(request: Request, deadline: float) -> Reply:
            seen.append(request)
            if len(seen) == 1:
                proxy.cut()  # with the reply in it
            return Reply(view=b"%d" % len(seen))

        await bus.serve("command", "A", handle)
        assert (await sender.request(request_of("A"), soon())).view in (b"1", b"2")
        for one in (bus, sender):
            await one.close()


async def test_only_who_sent_a_request_learns_of_it(connect: Connect) -> None:
    bus, sending, curious = NatsBus(await connect()), await connect(), await connect()
    gate = Gate()
    await bus.serve("command", "A", gate)
    waiting = asyncio.create_task(NatsBus(sending).request(request_of("A"), soon()))
    await gate.until(entered=1)
    found = []
    [number] = (waiting.number for waiting in sending._waiting.values())
    for asking in (curious, sending):
        answers: asyncio.Queue[Delivery] = asyncio.Queue()
        await asking.subscribe(f"{asking.inbox}.test.*", answers.put_nowait)
        asking.publish(
            asking.subjects.inquiry("command", "A"), encode_inquiry([1, number, 3]), reply=f"{asking.inbox}.test.1"
        )
        found.append(decode_found((await answers.get()).data))
    assert [one.running for one in found] == [[], [number]]
    gate.open()
    await waiting
    await bus.close()


async def test_malformed_inquiries_are_counted_and_malformed_answers_prove_nothing(connect: Connect) -> None:
    bus, other, sender = NatsBus(await connect()), await connect(), impatient(await connect())
    await bus.serve("command", "B", answering(Reply()))
    other.publish(other.subjects.inquiry("command", "B"), b"\x93garbage", reply=f"{other.inbox}.x.1")
    await eventually(lambda: bus.receiver.malformed > 0)

    hole = Hole(other, "A")
    await hole.open()
    await other.subscribe(other.subjects.inquiry("command", "A"), lambda delivery: delivery.respond(b"\xc1"))
    waiting = asyncio.create_task(sender.request(request_of("A"), soon()))
    await eventually(lambda: sender.inquirer.asked >= 4)
    assert sender.inquirer.resent == 0
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    for one in (bus, sender):
        await one.close()


async def test_what_could_not_be_asked_for_is_asked_for_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A user may not listen for the answers to its inquiries, until its rights are mended."""

    def config(denied: str) -> str:
        rights = f'{{publish: {{allow: [">"]}}, subscribe: {{allow: [">"], deny: [{denied}]}}}}'
        shop = f"{{user: shop, password: x, permissions: {rights}}}"
        return f"authorization {{users: [{shop}, {{user: orders, password: x}}]}}"

    async with nats_server(tmp_path, config=config('"evento.test.inbox.shop.*.inquiry.*"')) as nats:
        handling = NatsConnection(nats.url, cluster="test", user="orders", instance="1", token="x")
        sending = NatsConnection(nats.url, cluster="test", user="shop", instance="1", token="x")
        async with handling, sending, NatsBus(handling) as bus, impatient(sending) as sender:
            gate = Gate()
            await bus.serve("command", "A", gate)
            waiting = asyncio.create_task(sender.request(request_of("A"), soon()))
            await eventually(lambda: "may not serve" in caplog.text)
            assert sender.inquirer.asked == 0
            nats.config = config("")
            nats.reload()
            await eventually(lambda: sender.inquirer.asked > 0)
            gate.open()
            assert (await waiting).view == b"opened"


async def test_an_inquiry_for_too_many_requests_is_malformed(connect: Connect) -> None:
    bus, other = NatsBus(await connect()), await connect()
    await bus.serve("command", "A", answering(Reply()))
    for count in (MAX_NUMBERS, MAX_NUMBERS + 1):
        other.publish(other.subjects.inquiry("command", "A"), encode_inquiry([7] * count), reply=f"{other.inbox}.x.1")
    await eventually(lambda: bus.receiver.malformed == 1)
    await bus.close()


@pytest.mark.parametrize("decode", [decode_inquiry, decode_found])
@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90", b"\x93\x02\x90\x90", b"\x92\x01\xa1x", bytes(100)])
def test_frames_that_cannot_be_read(decode: Callable[[bytes], object], data: bytes) -> None:
    with pytest.raises(PayloadError):
        decode(data)


def test_frames_come_back() -> None:
    assert decode_inquiry(encode_inquiry([1, 2**40])) == [1, 2**40]
    found = decode_found(encode_found(decode_found(b"\x93\x01\x91\x07\x91\x92\x08\xc4\x01x")))
    assert found == ([7], [(8, b"x")])
