"""The bus on NATS: grace, resends, bounds, deadlines, refusals, and what comes of broken connections."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from msgspec.structs import replace
from nats_server import Connect, NatsServer, nats_server
from tcp_proxy import tcp_proxy
from waiting import eventually

from evento.errors import (
    AuthenticationError,
    CommandRejected,
    EventoError,
    HandlerNotFound,
    Overloaded,
    PayloadError,
    Stopped,
    error_from_data,
    error_to_data,
)
from evento.gateway.nats import ClusterClock, Delivery, NatsBus, NatsConnection
from evento.gateway.nats.wire import decode_reply, encode_request
from evento.messages import Reply, Request
from evento.testing.conformance.message_bus import RECORD, Gate, answering, request_of, soon


def error_of(reply: Reply) -> EventoError:
    assert reply.error is not None
    return error_from_data(reply.error)


async def test_a_request_in_flight_survives_the_server_and_its_handler_runs_once(
    connect: Connect, server: NatsServer
) -> None:
    bus, other = NatsBus(await connect()), NatsBus(await connect())
    gate = Gate()
    await bus.serve("command", "A", gate)
    waiting = asyncio.create_task(other.request(request_of("A"), soon()))
    await gate.until(entered=1)
    await server.kill()
    await server.start()
    await eventually(lambda: bus.receiver.attached > 0)
    gate.open()
    assert (await waiting).view == b"opened"
    assert len(gate.requests) == 1


async def test_a_sender_that_lost_its_connection_asks_again(connect: Connect, server: NatsServer) -> None:
    async with tcp_proxy(server.port) as proxy:
        bus, other = NatsBus(await connect()), NatsBus(await connect(servers=proxy.url))
        gate = Gate()
        await bus.serve("command", "A", gate)
        waiting = asyncio.create_task(other.request(request_of("A"), soon()))
        await gate.until(entered=1)
        proxy.cut()
        await eventually(lambda: bus.receiver.attached > 0)
        gate.open()
        assert (await waiting).view == b"opened"
        assert len(gate.requests) == 1


async def test_a_request_that_is_asked_again_after_its_end_tells_so(connect: Connect, server: NatsServer) -> None:
    async with tcp_proxy(server.port) as proxy:
        bus, other = NatsBus(await connect()), NatsBus(await connect(servers=proxy.url))
        gate = Gate()
        await bus.serve("command", "A", gate)
        waiting = asyncio.create_task(other.request(request_of("A"), soon()))
        await gate.until(entered=1)
        proxy.cut(refuse=True)
        gate.open()
        await eventually(lambda: bus.receiver.running == 0)
        proxy.refusing = False
        assert (await waiting).view == b"opened"
        assert [(request.attempt, request.keyed) for request in gate.requests] == [(1, False), (2, True)]
        assert gate.requests[0].message_id == gate.requests[1].message_id


async def test_a_reply_waits_until_the_connection_of_its_handler_is_back(connect: Connect, server: NatsServer) -> None:
    async with tcp_proxy(server.port) as proxy:
        bus, other = NatsBus(await connect(servers=proxy.url)), NatsBus(await connect())
        gate = Gate()
        await bus.serve("command", "A", gate)
        waiting = asyncio.create_task(other.request(request_of("A"), soon()))
        await gate.until(entered=1)
        lost = asyncio.Event()
        bus.connection.on_disconnect(lost.set)
        proxy.cut(refuse=True)
        await lost.wait()
        gate.open()
        proxy.refusing = False
        assert (await waiting).view == b"opened"
        assert len(gate.requests) == 1


async def test_refusals_of_a_resend_are_not_definite(connect: Connect, server: NatsServer) -> None:
    async with tcp_proxy(server.port) as proxy:
        bus, other = NatsBus(await connect()), NatsBus(await connect(servers=proxy.url))
        came = asyncio.Event()

        async def once(request: Request, deadline: float) -> Reply:
            came.set()
            if request.attempt == 1:
                await asyncio.Event().wait()
            return Reply(error=error_to_data(Overloaded("no")))

        await bus.serve("command", "A", once)
        waiting = asyncio.create_task(other.request(request_of("A"), soon()))
        await came.wait()
        await bus.receiver.stop()
        bus.receiver._stopping = False
        assert not error_of(await waiting).definite  # stopped while it ran
        came.clear()
        waiting = asyncio.create_task(other.request(request_of("A", payload=b"1"), soon()))
        await came.wait()
        for run in bus.receiver._all:
            run.first = run.first._replace(request=request_of("A", payload=b"other"))
        proxy.cut()
        error = error_of(await waiting)
        assert isinstance(error, Overloaded)
        assert not error.definite
        await bus.close()


async def test_another_server_takes_a_request_in_flight_over(
    connect: Connect, server: NatsServer, tmp_path: Path
) -> None:
    async with nats_server(tmp_path) as second:
        pair = f"{server.url},{second.url}"
        bus, other = NatsBus(await connect(servers=pair)), NatsBus(await connect(servers=server.url + "," + second.url))
        gate = Gate()
        await bus.serve("command", "A", gate)
        waiting = asyncio.create_task(other.request(request_of("A"), soon()))
        await asyncio.sleep(0)
        await server.kill()
        gate.open()
        assert (await waiting).view == b"opened"


async def test_a_name_may_be_served_within_the_grace_period(connect: Connect) -> None:
    bus, other = NatsBus(await connect()), NatsBus(await connect(), handler_grace=30)
    waiting = asyncio.create_task(other.request(request_of("A"), soon()))
    with pytest.raises(HandlerNotFound):
        await bus.request(request_of("B"), soon(0.2))
    await bus.serve("command", "A", answering(Reply(view=b"late")))
    assert (await waiting).view == b"late"


async def test_too_many_requests_are_refused_at_once(connect: Connect) -> None:
    bus, other = NatsBus(await connect(), max_running=2), NatsBus(await connect())
    gate = Gate()
    await bus.serve("command", "A", gate)
    waiting = [asyncio.create_task(other.request(request_of("A", message_id=f"m{n}"), soon())) for n in range(2)]
    await gate.until(entered=2)
    error = error_of(await other.request(request_of("A", message_id="m2"), soon()))
    assert isinstance(error, Overloaded)
    assert error.definite
    nested = asyncio.create_task(other.request(request_of("A", message_id="m3", depth=1), soon()))
    await gate.until(entered=3)
    gate.open()
    assert [reply.view for reply in await asyncio.gather(*waiting, nested)] == [b"opened"] * 3
    await eventually(lambda: bus.receiver.running == 0)
    assert bus.receiver.refused == 1


async def test_too_many_bytes_are_refused_at_once(connect: Connect) -> None:
    bus, other = NatsBus(await connect(), max_bytes=150_000), NatsBus(await connect())
    gate = Gate()
    await bus.serve("command", "A", gate)
    large = bytes(100_000)
    waiting = asyncio.create_task(other.request(request_of("A", payload=large), soon()))
    await gate.until(entered=1)
    refused = await other.request(request_of("A", payload=large, message_id="m2"), soon())
    assert isinstance(error_of(refused), Overloaded)
    gate.open()
    await waiting
    assert (await other.request(request_of("A", payload=bytes(200_000), message_id="m3"), soon())).view == b"opened"


async def test_a_handler_is_cancelled_at_the_deadline(connect: Connect) -> None:
    bus, other = NatsBus(await connect()), NatsBus(await connect())
    gate = Gate()
    await bus.serve("command", "A", gate)
    waiting = asyncio.create_task(other.request(request_of("A"), soon(2.0)))
    await gate.until(cancelled=1)
    assert not waiting.done()  # the gateway knows by itself
    waiting.cancel()
    await eventually(lambda: bus.receiver.running == 0)


async def test_a_resend_with_more_time_runs_again_when_the_first_has_expired(connect: Connect) -> None:
    bus, other = NatsBus(await connect()), NatsBus(await connect())
    gate = Gate()
    await bus.serve("command", "A", gate)
    first = asyncio.create_task(other.request(request_of("A"), soon(2.0)))
    await gate.until(entered=1)
    again = asyncio.create_task(other.request(request_of("A", attempt=2), soon()))
    await gate.until(entered=2)
    assert gate.cancelled == 1
    gate.open()
    assert (await again).view == b"opened"
    first.cancel()


async def test_the_time_on_the_way_counts(connect: Connect) -> None:
    clock = ClusterClock()
    clock.correct(1_000_000.0, clock.reading(), clock.reading())
    bus, sender = NatsBus(await connect(), clock=clock), await connect()
    gate = Gate()
    gate.open()
    await bus.serve("command", "A", gate)
    subject = sender.subjects.command("A")
    for seconds_ago, runs in ((20, 0), (5, 1)):
        frame = encode_request(request_of("A"), attempt=1, remaining=10, sent_at=clock.now() - seconds_ago)
        reply, _ = decode_reply(await sender.request(subject, frame, soon()), "A")
        assert len(gate.requests) == runs
        assert (reply.error is None) == bool(runs)
    assert gate.deadlines[0] < soon(5.1)
    assert bus.receiver.expired == 1


async def test_requests_over_the_limit_are_refused_before_they_are_sent(connect: Connect) -> None:
    bus = NatsBus(await connect())
    with pytest.raises(PayloadError) as caught:
        await bus.request(request_of("A", payload=bytes(2_000_000)), soon())
    assert caught.value.definite


async def test_replies_over_the_limit_become_an_error(connect: Connect) -> None:
    bus, other = NatsBus(await connect()), NatsBus(await connect())
    large = bytes(2_000_000)
    await bus.serve("query", "A", answering(Reply(view=large)))
    await bus.serve("command", "B", answering(Reply(event=replace(RECORD, payload=large))))
    await bus.serve("command", "C", answering(Reply(error=error_to_data(CommandRejected("x" * 2_000_000)))))
    for kind, name, definite in (("query", "A", True), ("command", "B", False), ("command", "C", True)):
        error = error_of(await other.request(request_of(name, kind=kind), soon()))
        assert isinstance(error, PayloadError)
        assert "over the limit" in str(error)
        assert error.definite is definite


async def test_malformed_requests_are_answered_and_counted(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    bus, sender = NatsBus(await connect()), await connect()
    gate = Gate()
    await bus.serve("command", "A", gate)
    for _ in range(5):
        reply, _ = decode_reply(await sender.request(sender.subjects.command("A"), b"\x93garbage", soon()), "A")
        assert isinstance(error_of(reply), PayloadError)
    sender.publish(sender.subjects.command("A"), b"")
    gate.open()
    await NatsBus(sender).request(request_of("A"), soon())
    assert bus.receiver.malformed == 6
    assert caplog.text.count("malformed requests so far") == 3


async def test_malformed_replies_are_payload_errors(connect: Connect) -> None:
    server, other = await connect(), NatsBus(await connect())

    def garble(delivery: Delivery) -> None:
        delivery.respond(b"\xc1")

    await server.subscribe(server.subjects.command("A"), garble)
    await server.subscribe(server.subjects.query("A"), garble)
    for kind, definite in (("command", False), ("query", True)):
        with pytest.raises(PayloadError) as caught:
            await other.request(request_of("A", kind=kind), soon())
        assert caught.value.definite is definite


async def test_stopping_the_handling_side_ends_requests_in_flight(connect: Connect) -> None:
    bus, other = NatsBus(await connect()), NatsBus(await connect(), handler_grace=0.05)
    gate = Gate()
    await bus.serve("command", "A", gate)
    waiting = asyncio.create_task(other.request(request_of("A"), soon()))
    await gate.until(entered=1)
    await bus.close()
    error = error_of(await waiting)
    assert isinstance(error, Stopped)
    assert not error.definite
    with pytest.raises(HandlerNotFound):
        await other.request(request_of("A"), soon())
    with pytest.raises(Stopped):
        await bus.serve("command", "A", gate)


async def test_stopping_the_sending_side_ends_requests_in_flight(connect: Connect) -> None:
    connection = await connect()
    bus, other = NatsBus(await connect()), NatsBus(connection)
    gate = Gate()
    await bus.serve("command", "A", gate)
    waiting = asyncio.create_task(other.request(request_of("A"), soon()))
    await gate.until(entered=1)
    await connection.close()
    with pytest.raises(Stopped) as caught:
        await waiting
    assert not caught.value.definite
    await bus.close()


async def test_what_handlers_let_escape_is_still_an_answer(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    bus, other = NatsBus(await connect()), NatsBus(await connect())

    async def fail(request: Request, deadline: float) -> Reply:
        raise ZeroDivisionError("oh")

    async def give_up(request: Request, deadline: float) -> Reply:
        raise asyncio.CancelledError

    await bus.serve("command", "A", fail)
    await bus.serve("command", "B", give_up)
    assert error_of(await other.request(request_of("A"), soon())).type == "ZeroDivisionError"
    assert "outside of what it answers for" in caplog.text
    assert not error_of(await other.request(request_of("B"), soon())).definite
    await eventually(lambda: bus.receiver.running == 0)


USERS = """
authorization {
  users: [
    { user: "shop", password: "secret", permissions: {
        publish: ["evento.test.query.>", "evento.test.inbox.>"],
        subscribe: ["evento.test.inbox.shop.>", "evento.test.query.>", "evento.test.inquiry.query.>"] } }
  ]
}
"""


async def test_what_a_bundle_may_not_send_or_serve_is_refused(tmp_path: Path) -> None:
    async with (
        nats_server(tmp_path, config=USERS) as server,
        NatsConnection(server.url, cluster="test", user="shop", instance="1", token="secret") as connection,
    ):
        bus = NatsBus(connection)
        await bus.serve("query", "A", answering(Reply(view=b"yes")))
        with pytest.raises(AuthenticationError):
            await bus.serve("command", "A", answering(Reply()))
        with pytest.raises(AuthenticationError):
            await bus.request(request_of("A"), soon())
        assert (await bus.request(request_of("A", kind="query"), soon())).view == b"yes"


async def test_a_crowd_is_bounded_and_everyone_gets_an_answer(connect: Connect) -> None:
    bus, other = NatsBus(await connect(), max_running=500), NatsBus(await connect())
    gate = Gate()
    await bus.serve("command", "A", gate)
    crowd = [asyncio.create_task(other.request(request_of("A", message_id=f"m{n}"), soon())) for n in range(10_000)]

    def refused() -> bool:
        assert bus.receiver.running <= 500
        return bus.receiver.refused >= 9_500

    await eventually(refused, within=30)
    gate.open()
    told = Counter(reply.error.code if reply.error else "served" for reply in await asyncio.gather(*crowd))
    assert told == {"served": 500, "Overloaded": 9_500}


async def test_a_consumer_that_was_too_slow_comes_back(tmp_path: Path) -> None:
    async with (
        nats_server(tmp_path, config='max_pending: 2MB\nwrite_deadline: "100ms"') as server,
        NatsConnection(server.url, cluster="test", user="shop", instance="1") as one,
        NatsConnection(server.url, cluster="test", user="shop", instance="2") as two,
    ):
        bus, other = NatsBus(one), NatsBus(two)
        await bus.serve("query", "A", answering(Reply(view=b"here")))
        link = one._link
        assert link is not None
        assert link._transport is not None
        link._transport.pause_reading()
        back = asyncio.Event()
        one.on_reconnect(back.set)
        flood = [
            asyncio.create_task(other.request(request_of("A", kind="query", payload=bytes(500_000)), soon()))
            for _ in range(40)
        ]
        await eventually(lambda: not link.is_open or "Slow Consumer" in server.log, within=30)
        link._transport.resume_reading()
        await back.wait()
        assert (await other.request(request_of("A", kind="query"), soon())).view == b"here"
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
        assert two.in_flight == 0
