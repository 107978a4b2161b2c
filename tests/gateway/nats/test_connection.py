"""The connection: requests, subscriptions, reconnecting, refusals."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from nats_server import Connect, NatsServer, free_port, nats_server
from tcp_proxy import tcp_proxy
from waiting import eventually

from evento.errors import AuthenticationError, PayloadError, Stopped, StoreUnavailable, TooManyPendingRequests
from evento.gateway.nats import Delivery, NatsConnection, NoResponders
from evento.gateway.nats.protocol import publish_frame


def soon(seconds: float = 30.0) -> float:
    return asyncio.get_running_loop().time() + seconds


def echo(delivery: Delivery) -> None:
    delivery.respond(b"echo " + delivery.data)


class Collected:
    """Keeps deliveries, and answers none."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self._arrived = asyncio.Event()

    def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self._arrived.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.deliveries) < count:
                self._arrived.clear()
                await self._arrived.wait()


async def test_a_request_is_answered_by_who_serves_the_subject(connect: Connect) -> None:
    one, other = await connect(), await connect()
    await other.subscribe("evento.test.x", echo)
    assert await one.request("evento.test.x", b"hello", soon()) == b"echo hello"


async def test_requests_in_flight_get_their_own_answers(connect: Connect) -> None:
    one, other = await connect(), await connect()
    await other.subscribe("x", echo)
    texts = [b"%d" % number for number in range(2000)]
    answers = await asyncio.gather(*(one.request("x", text, soon()) for text in texts))
    assert answers == [b"echo " + text for text in texts]
    assert one.in_flight == 0


async def test_a_subject_that_nobody_serves_is_told_at_once(connect: Connect) -> None:
    with pytest.raises(NoResponders) as caught:
        await (await connect()).request("nobody.here", b"", soon())
    assert caught.value.attempt == 1


async def test_a_subject_may_be_served_within_the_grace_period(connect: Connect) -> None:
    one, other = await connect(), await connect()
    waiting = asyncio.create_task(one.request("x", lambda attempt: b"%d" % attempt, soon(30), grace=30))
    with pytest.raises(NoResponders):
        await one.request("x", b"", soon(), grace=0.05)
    await other.subscribe("x", echo)
    assert await waiting == b"echo 1"
    with pytest.raises((NoResponders, TimeoutError)):  # as the deadline comes between two attempts, or within one
        await one.request("y", b"", soon(0.05), grace=30)


async def test_a_request_without_an_answer_ends_at_its_deadline(connect: Connect) -> None:
    one, other = await connect(), await connect()
    asked = Collected()
    await other.subscribe("x", asked)
    with pytest.raises(TimeoutError):
        await one.request("x", b"", soon(0.05))
    await asked.until(1)
    asked.deliveries[0].respond(b"late")
    await other.subscribe("y", echo)
    assert await one.request("y", b"a", soon()) == b"echo a"


async def test_a_cancelled_request_leaves_nothing_behind(connect: Connect) -> None:
    one, other = await connect(max_in_flight=1), await connect()
    asked = Collected()
    await other.subscribe("x", asked)
    waiting = asyncio.create_task(one.request("x", b"", soon()))
    await asked.until(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert one.in_flight == 0
    asked.deliveries[0].respond(b"late")


async def test_requests_in_flight_are_bounded(connect: Connect) -> None:
    one, other = await connect(max_in_flight=2), await connect()
    asked = Collected()
    await other.subscribe("x", asked)
    waiting = [asyncio.create_task(one.request("x", b"", soon())) for _ in range(2)]
    await asked.until(2)
    with pytest.raises(TooManyPendingRequests):
        await one.request("x", b"", soon())
    for delivery in asked.deliveries:
        delivery.respond(b"done")
    assert await asyncio.gather(*waiting) == [b"done", b"done"]


async def test_of_a_queue_one_gets_a_message(connect: Connect) -> None:
    one = await connect()
    seen: list[int] = []

    def serving(number: int) -> Callable[[Delivery], None]:
        def serve(delivery: Delivery) -> None:
            seen.append(number)
            delivery.respond(b"")

        return serve

    for number in range(2):
        await (await connect()).subscribe("x", serving(number), queue="evento")
    await asyncio.gather(*(one.request("x", b"", soon()) for _ in range(200)))
    assert len(seen) == 200
    assert set(seen) == {0, 1}


async def test_a_drained_subscription_hands_over_what_was_under_way(connect: Connect) -> None:
    one, other = await connect(), await connect()
    asked = Collected()
    subscription = await other.subscribe("x", asked)
    waiting = [asyncio.create_task(one.request("x", b"", soon())) for _ in range(100)]
    await asked.until(1)
    await subscription.drain()
    for delivery in asked.deliveries:
        delivery.respond(b"served")
    results = await asyncio.gather(*waiting, return_exceptions=True)
    served = [result for result in results if result == b"served"]
    assert len(served) == len(asked.deliveries)
    assert all(isinstance(result, NoResponders) for result in results if result != b"served")
    with pytest.raises(NoResponders):
        await one.request("x", b"", soon())


async def test_a_failing_callback_does_not_end_the_connection(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = await connect(), await connect()

    def fail(delivery: Delivery) -> None:
        raise RuntimeError("oh")

    await other.subscribe("x", fail)
    await other.subscribe("y", echo)
    one.publish("x", b"")
    assert await one.request("y", b"a", soon()) == b"echo a"
    assert "the callback of x failed" in caplog.text


async def test_large_messages_arrive_whole(connect: Connect) -> None:
    one, other = await connect(), await connect()
    await other.subscribe("x", lambda delivery: delivery.respond(delivery.data))
    message = bytes(range(256)) * 4000
    assert await one.request("x", message, soon()) == message


async def test_messages_over_the_limit_are_refused_before_they_are_sent(connect: Connect) -> None:
    one, other = await connect(), await connect()
    asked = Collected()
    await other.subscribe("x", asked)
    large = bytes(one.max_payload + 1)
    with pytest.raises(PayloadError, match="over the limit"):
        await one.request("x", large, soon())
    with pytest.raises(PayloadError):
        one.publish("x", large)
    waiting = asyncio.create_task(one.request("x", b"", soon()))
    await asked.until(1)
    with pytest.raises(PayloadError):
        asked.deliveries[0].respond(large)
    asked.deliveries[0].respond(b"small")
    assert await waiting == b"small"


async def test_requests_in_flight_outlive_a_killed_server(connect: Connect, server: NatsServer) -> None:
    one, other = await connect(), await connect()
    asked = Collected()
    await other.subscribe("x", asked)
    waiting = asyncio.create_task(one.request("x", lambda attempt: b"attempt %d" % attempt, soon(30), grace=30))
    await asked.until(1)
    await server.kill()
    await server.start()
    await asked.until(2)
    assert [delivery.data for delivery in asked.deliveries] == [b"attempt 1", b"attempt 2"]
    asked.deliveries[1].respond(b"done")
    assert await waiting == b"done"
    assert one.reconnects == 1


async def test_an_answer_to_the_first_attempt_still_counts_after_a_reconnect(
    connect: Connect, server: NatsServer
) -> None:
    one, other = await connect(), await connect()
    asked = Collected()
    await other.subscribe("x", asked)
    waiting = asyncio.create_task(one.request("x", b"", soon(30), grace=30))
    await asked.until(1)
    await server.kill()
    asked.deliveries[0].respond(b"done")  # held back, or lost with the connection
    await server.start()
    second = asyncio.create_task(asked.until(2))
    await asyncio.wait({waiting, second}, return_when=asyncio.FIRST_COMPLETED)
    asked.deliveries[0].respond(b"done")
    assert await waiting == b"done"
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)


async def test_an_answer_to_the_first_attempt_counts_while_nobody_serves_the_second(
    connect: Connect, server: NatsServer
) -> None:
    """Its replica takes no more requests and ends those that it has, as when it is stopped."""
    async with tcp_proxy(server.port) as proxy:
        one, other = await connect(servers=proxy.url), await connect()
        asked, attempts = Collected(), list[int]()

        def message(attempt: int) -> bytes:
            attempts.append(attempt)
            return b""

        subscription = await other.subscribe("x", asked)
        waiting = asyncio.create_task(one.request("x", message, soon(30), grace=30))
        await asked.until(1)
        await subscription.drain()
        proxy.cut()
        await eventually(lambda: attempts.count(2) >= 8)  # the pauses between them are long by now
        asked.deliveries[0].respond(b"done")
        assert await waiting == b"done"
        assert set(attempts) == {1, 2}


async def test_a_request_waits_for_the_connection_until_its_deadline(connect: Connect, server: NatsServer) -> None:
    one = await connect()
    lost = asyncio.Event()
    one.on_disconnect(lost.set)
    await server.kill()
    await lost.wait()
    assert not one.is_connected
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await one.request("x", b"", soon(0.2))
    assert time.monotonic() - began < 5
    one.publish("x", b"")
    assert one.dropped == 1


async def test_callbacks_tell_of_lost_and_returned_connections(connect: Connect, server: NatsServer) -> None:
    one = await connect()
    told: list[str] = []
    back = asyncio.Event()

    async def returned() -> None:
        await one.subscribe("y", echo)
        assert await one.request("y", b"a", soon()) == b"echo a"
        told.append("back")
        back.set()

    one.on_disconnect(lambda: told.append("lost"))
    one.on_reconnect(returned)
    one.on_reconnect(lambda: told.append("never"))()
    await server.kill()
    await server.start()
    await back.wait()
    assert told == ["lost", "back"]


async def test_another_server_takes_over(connect: Connect, server: NatsServer, tmp_path: Path) -> None:
    async with nats_server(tmp_path) as second:
        pair = f"{server.url},{second.url}"
        one = await connect(servers=pair)
        other = await connect(servers=pair)
        await other.subscribe("x", echo)
        await server.kill()
        assert await one.request("x", b"a", soon(20), grace=20) == b"echo a"


async def test_the_servers_of_a_cluster_are_tried_when_none_that_is_known_answers(tmp_path: Path) -> None:
    routes = free_port(), free_port()
    config = 'cluster {{ name: c, listen: "127.0.0.1:{}", routes: ["nats://127.0.0.1:{}"] }}'
    async with (
        nats_server(tmp_path, config=config.format(routes[0], routes[1])) as first,
        nats_server(tmp_path, config=config.format(routes[1], routes[0])) as second,
        NatsConnection(second.url, cluster="test", user="shop", instance="2") as other,
    ):
        await other.subscribe("x", echo)

        async def have_found_each_other() -> bool:
            async with NatsConnection(first.url, cluster="test", user="shop", instance="0") as early:
                return len(early._peers) > 0

        await eventually(have_found_each_other)
        async with NatsConnection(first.url, cluster="test", user="shop", instance="1") as one:
            assert one._peers
            await first.kill()
            assert await one.request("x", b"a", soon(20)) == b"echo a"


async def test_a_server_that_joins_the_cluster_later_is_tried_too(tmp_path: Path) -> None:
    route = free_port()
    config = 'cluster {{ name: c, listen: "127.0.0.1:{}", routes: [{}] }}'
    async with (
        nats_server(tmp_path, config=config.format(route, "")) as first,
        NatsConnection(first.url, cluster="test", user="shop", instance="1") as one,
        nats_server(tmp_path, config=config.format(free_port(), f'"nats://127.0.0.1:{route}"')) as second,
        NatsConnection(second.url, cluster="test", user="shop", instance="2") as other,
    ):
        await other.subscribe("x", echo)
        assert one._link is not None
        link = one._link
        await eventually(lambda: len(link.peers) > 1)
        await first.kill()
        assert await one.request("x", b"a", soon(20)) == b"echo a"


async def test_a_server_that_comes_later_is_waited_for(tmp_path: Path) -> None:
    port = free_port()
    said: list[str] = []
    connection = NatsConnection(
        f"nats://127.0.0.1:{port}", cluster="test", user="shop", instance="1", start_timeout=None, progress=said.append
    )
    entering = asyncio.create_task(connection.__aenter__())
    await eventually(lambda: len(said) > 0)
    assert f"waiting for an Evento Server at nats://127.0.0.1:{port}" in said[0]
    async with nats_server(tmp_path, port=port):
        await entering
        assert connection.is_connected
        await connection.close()


async def test_no_server_is_an_error_after_the_start_timeout() -> None:
    with pytest.raises(StoreUnavailable, match=r"within 0\.2 s"):
        async with NatsConnection(
            f"127.0.0.1:{free_port()}", cluster="test", user="shop", instance="1", start_timeout=0.2
        ):
            pass


async def test_something_else_on_the_port_is_no_server() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(StoreUnavailable, match="does not speak NATS"):
            async with NatsConnection(
                f"127.0.0.1:{port}", cluster="test", user="shop", instance="1", start_timeout=2.0
            ):
                pass


async def test_closing_ends_what_waits(connect: Connect) -> None:
    one, other = await connect(), await connect()
    asked = Collected()
    await other.subscribe("x", asked)
    waiting = asyncio.create_task(one.request("x", b"", soon()))
    await asked.until(1)
    await one.close()
    with pytest.raises(Stopped) as caught:
        await waiting
    assert not caught.value.definite
    with pytest.raises(Stopped) as caught:
        await one.request("x", b"", soon())
    assert caught.value.definite
    with pytest.raises(Stopped):
        await one.subscribe("x", echo)


USERS = """
authorization {
  users: [
    { user: "shop", password: "secret", permissions: {
        publish: ["allowed", "evento.test.inbox.>"], subscribe: ["allowed", "evento.test.inbox.shop.>"] } }
    { user: "other", password: "secret2", permissions: {
        publish: ["allowed"], subscribe: ["evento.test.inbox.another.>"] } }
  ]
}
"""


def secured(server: NatsServer, user: str = "shop", token: str | None = "secret") -> NatsConnection:
    return NatsConnection(server.url, cluster="test", user=user, instance="1", token=token)


async def test_a_wrong_token_is_refused_at_once(tmp_path: Path) -> None:
    async with nats_server(tmp_path, config=USERS) as server:
        for token in ("wrong", None):
            with pytest.raises(AuthenticationError, match="'shop'"):
                async with secured(server, token=token):
                    pass


async def test_what_a_user_may_not_do_is_told_to_who_did_it(tmp_path: Path) -> None:
    async with nats_server(tmp_path, config=USERS) as server, secured(server) as one:
        await one.subscribe("allowed", echo)
        assert await one.request("allowed", b"a", soon()) == b"echo a"
        with pytest.raises(AuthenticationError, match="may not send to forbidden"):
            await one.request("forbidden", b"", soon())
        with pytest.raises(AuthenticationError, match="may not serve forbidden"):
            await one.subscribe("forbidden", echo, queue="evento")
        assert await one.request("allowed", b"a", soon()) == b"echo a"


async def test_a_user_who_may_not_receive_answers_is_refused(tmp_path: Path) -> None:
    async with nats_server(tmp_path, config=USERS) as server:
        with pytest.raises(AuthenticationError, match="may not receive answers"):
            async with secured(server, "other", "secret2"):
                pass


async def test_a_token_that_is_taken_away_may_come_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with nats_server(tmp_path, config=USERS) as server, secured(server) as one:
        await one.subscribe("allowed", echo)
        lost = asyncio.Event()
        one.on_disconnect(lost.set)
        server.config = USERS.replace('"secret"', '"changed"')
        server.reload()
        await lost.wait()
        await eventually(lambda: "the server refused the user 'shop'" in caplog.text)
        server.config = USERS
        server.reload()
        assert await one.request("allowed", b"a", soon(20)) == b"echo a"


async def test_what_is_refused_for_a_while_is_served_again(tmp_path: Path) -> None:
    async with (
        nats_server(tmp_path, config=USERS) as server,
        NatsConnection(server.url, cluster="test", user="shop", instance="1", token="secret", ping_interval=1.0) as one,
    ):
        await one.subscribe("allowed", echo)
        server.config = USERS.replace('subscribe: ["allowed", ', "subscribe: [")
        server.reload()
        await eventually(lambda: one.denied == ["allowed"])
        with pytest.raises(NoResponders):
            await one.request("allowed", b"a", soon())
        server.config = USERS
        server.reload()
        assert await one.request("allowed", b"a", soon(20), grace=20) == b"echo a"
        assert one.reconnects == 0


async def test_a_server_that_says_odd_things_of_itself_is_survived() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"max_payload":"x","connect_urls":["\xc3\xbc:::",1,"a:b"],"tls_required":0}\r\n')
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        async with NatsConnection(f"127.0.0.1:{port}", cluster="test", user="shop", instance="1") as one:
            assert one.is_connected
            assert one.max_payload == 1024 * 1024


async def test_a_server_that_does_not_answer_any_more_counts_as_gone(
    connect: Connect, server: NatsServer, tmp_path: Path
) -> None:
    async with nats_server(tmp_path) as second:
        one = await connect(servers=f"{server.url},{second.url}", ping_interval=0.2)
        served = await connect(servers=second.url)
        await served.subscribe("x", echo)
        lost = asyncio.Event()
        one.on_disconnect(lost.set)
        for running in (server, second):
            running.pause()
        await lost.wait()
        for running in (server, second):
            running.go_on()
        await server.stop()
        assert await one.request("x", b"a", soon(20), grace=20) == b"echo a"


@pytest.mark.parametrize(
    "address",
    ["http://host:1", "nats://", "nats://user:secret@host:1", "nats://host:1/path", "nats://host:99999", "", " , "],
)
def test_addresses_that_are_none_are_refused(address: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        NatsConnection(address, cluster="test", user="shop", instance="1")
    assert "secret" not in str(caught.value)


async def test_an_answer_goes_to_an_inbox_or_nowhere(connect: Connect) -> None:
    one, other, sender = await connect(), await connect(), await connect()
    elsewhere = Collected()
    await other.subscribe("evento.test.store.append", elsewhere)
    await one.subscribe("x", echo)
    assert sender._link is not None
    sender._link.write(publish_frame(b"x", b"evento.test.store.append", b"forged"))
    assert await sender.request("x", b"a", soon()) == b"echo a"
    assert one.forged == 1
    await other.subscribe("y", echo)  # whatever was sent before this has arrived
    assert not elsewhere.deliveries


async def test_what_is_no_subject_is_never_sent(connect: Connect) -> None:
    one = await connect()
    for subject in ("", "a b", "a\r\nPUB x 0\r\n", "gr\u00f6\u00dfe"):
        with pytest.raises(ValueError, match="is no subject"):
            one.publish(subject, b"")
        with pytest.raises(ValueError, match="is no subject"):
            await one.request(subject, b"", soon())
        with pytest.raises(ValueError, match="is no subject"):
            await one.subscribe(subject, echo)
    assert one.in_flight == 0
