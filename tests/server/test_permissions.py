"""What NATS itself refuses to an impostor, while those who may do not notice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from guarded_gateway import Gateway
from nats.errors import NoRespondersError
from waiting import eventually

PREFIX = "evento.shop"


@pytest.fixture
async def running(gateway: Gateway) -> Gateway:
    """The bundles 'orders', whose token reserves two names, 'other' and 'thief', who may all else."""
    gateway.allow("orders", "PlaceOrderCommand", "OrderQuery")
    gateway.allow("other")
    gateway.allow("thief")
    await gateway.server.reload()
    return gateway


@pytest.fixture
async def orders(running: Gateway) -> AsyncIterator[Any]:
    """The live bundle: handles its two names, and the server serves the store and the registry."""
    async with running.client("orders") as orders, running.client("evento-server") as server:
        for name in ("command.PlaceOrderCommand", "query.OrderQuery"):
            await serve(orders, f"{PREFIX}.{name}", b"orders")
        for name in ("store.append", "store.purge", "registry.*.register"):
            await serve(server, f"{PREFIX}.{name}", b"server")
        yield orders


async def serve(client: Any, subject: str, answer: bytes, queue: str = "evento") -> None:
    async def answered(message: Any) -> None:
        await message.respond(answer)

    await client.subscribe(subject, queue, cb=answered)
    await client.flush()


async def answer(client: Any, subject: str) -> bytes:
    """Ask whoever serves a subject; NATS may tell of a new subscription only a moment after it has taken it."""
    answers: list[bytes] = []

    async def answered() -> bool:
        with contextlib.suppress(NoRespondersError):
            answers.append((await client.request(subject, b"", timeout=20)).data)
        return len(answers) > 0

    await eventually(answered)
    return answers[0]


async def refusal(client: Any, doing: Callable[[], Awaitable[object]]) -> str:
    """Do something that NATS must refuse, and return what it said."""
    client.refusals.clear()
    await doing()
    await client.flush()
    await eventually(lambda: len(client.refusals) > 0)
    return str(client.refusals[0]).lower()


async def hello(gateway: Gateway, user: str, password: str) -> bytes:
    """Connect, show a token, and return all that NATS says before it hangs up."""
    address = gateway.settings.gateway
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        shown = msgspec.json.encode({"verbose": False, "pedantic": False, "user": user, "pass": password})
        writer.write(b"CONNECT " + shown + b"\r\nPING\r\n")
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        await writer.wait_closed()


async def nothing(message: Any) -> None:
    raise AssertionError(message)


async def test_without_the_right_token_nobody_connects(running: Gateway, orders: Any) -> None:
    for user, password in (("thief", "wrong"), ("nobody", "x"), ("", ""), ("evento-server", ""), ("orders", "")):
        assert b"-ERR 'Authorization Violation'" in await hello(running, user, password)

    async with running.client("other") as other:
        assert (await other.request(f"{PREFIX}.query.OrderQuery", b"", timeout=20)).data == b"orders"


FORBIDDEN_TO_READ = [
    ("inbox.orders.1.1", ""),
    ("inbox.>", ""),
    ("inbox.*.1.1", ""),
    ("instance.orders.1.drain", ""),
    ("store.append", "evento"),
    ("store.>", ""),
    ("registry.*.register", "evento"),
    ("registry.thief.register", "evento"),
    ("registry.*", ""),
    ("command.PlaceOrderCommand", "evento"),
    ("query.OrderQuery", "evento"),
    ("inquiry.command.PlaceOrderCommand", ""),
    ("inquiry.query.OrderQuery", "evento"),
    ("inquiry.*.*", ""),
    ("inquiry.>", ""),
    ("command.PlaceOrderCommand", ""),
    ("command.PlaceOrderCommand", "evento2"),
    ("command.*", ""),
    ("telemetry.>", ""),
    (">", ""),
]


@pytest.mark.parametrize(("subject", "queue"), FORBIDDEN_TO_READ, ids=lambda part: part or "plain")
async def test_what_an_impostor_may_not_subscribe(running: Gateway, orders: Any, subject: str, queue: str) -> None:
    async with running.client("thief") as thief, running.client("other") as other:
        said = await refusal(thief, lambda: thief.subscribe(f"{PREFIX}.{subject}", queue, cb=nothing))

        assert "permissions violation for subscription" in said
        for request, answer in (("command.PlaceOrderCommand", b"orders"), ("store.append", b"server")):
            assert (await other.request(f"{PREFIX}.{request}", b"", timeout=20)).data == answer


@pytest.mark.parametrize("subject", ["evento.other.command.X", "_INBOX.>", "$SYS.>", ">"])
async def test_nothing_outside_the_cluster_is_open(running: Gateway, subject: str) -> None:
    async with running.client("thief") as thief:
        assert "permissions violation" in await refusal(thief, lambda: thief.subscribe(subject, cb=nothing))
        assert "permissions violation" in await refusal(thief, lambda: thief.publish(subject.replace(">", "x"), b""))


@pytest.mark.parametrize(
    "subject",
    [
        "head",
        "store.purge",
        "store.verify",
        "store.append.more",
        "instance.orders.1.drain",
        "inbox.orders.1.1",
        "telemetry.orders.1",
        "command.A.B",
        "registry.orders.register",
    ],
)
async def test_what_an_impostor_may_not_publish(running: Gateway, orders: Any, subject: str) -> None:
    async with running.client("thief") as thief, running.client("other") as other:
        heard: list[bytes] = []

        async def hear(message: Any) -> None:
            heard.append(message.data)

        await other.subscribe(f"{PREFIX}.head", cb=hear)
        await other.flush()
        said = await refusal(thief, lambda: thief.publish(f"{PREFIX}.{subject}", b"forged"))

        assert "permissions violation for publish" in said
        assert (await other.request(f"{PREFIX}.store.append", b"", timeout=20)).data == b"server"
        assert heard == []


@pytest.mark.parametrize("wildcard", ["*", ">"])
async def test_a_wildcard_gets_nothing_of_what_is_reserved(running: Gateway, orders: Any, wildcard: str) -> None:
    """A bundle without --serves may subscribe every name at once; what others reserve still never reaches it."""
    async with running.client("thief") as thief, running.client("other") as other:
        await serve(thief, f"{PREFIX}.command.{wildcard}", b"thief")
        answers = [
            (await other.request(f"{PREFIX}.command.PlaceOrderCommand", b"", timeout=20)).data for _ in range(100)
        ]

        assert set(answers) == {b"orders"}
        assert (await other.request(f"{PREFIX}.command.FreeCommand", b"", timeout=20)).data == b"thief"


async def test_a_reserved_name_is_not_answered_by_others_while_its_bundle_is_away(running: Gateway) -> None:
    async with running.client("thief") as thief, running.client("other") as other:
        await serve(thief, f"{PREFIX}.command.*", b"thief")

        with pytest.raises((NoRespondersError, TimeoutError)):
            await other.request(f"{PREFIX}.command.PlaceOrderCommand", b"", timeout=0.5)


async def test_what_others_handle_is_not_asked_of_an_impostor(running: Gateway, orders: Any) -> None:
    async with running.client("thief") as thief, running.client("other") as other:
        await serve(thief, f"{PREFIX}.inquiry.command.*", b"thief", queue="")
        await serve(orders, f"{PREFIX}.inquiry.command.PlaceOrderCommand", b"orders", queue="")
        answers = [
            (await other.request(f"{PREFIX}.inquiry.command.PlaceOrderCommand", b"", timeout=20)).data
            for _ in range(50)
        ]

        assert set(answers) == {b"orders"}
        assert (await other.request(f"{PREFIX}.inquiry.command.FreeCommand", b"", timeout=20)).data == b"thief"


async def test_who_lists_names_handles_no_others(running: Gateway, orders: Any) -> None:
    said = await refusal(orders, lambda: orders.subscribe(f"{PREFIX}.command.FreeCommand", "evento", cb=nothing))

    assert "permissions violation" in said


async def test_a_reply_may_be_sent_once_and_only_for_a_request(running: Gateway) -> None:
    async with running.client("thief") as thief, running.client("other") as other:
        replies: list[Any] = []

        async def keep(message: Any) -> None:
            replies.append(message)

        await thief.subscribe(f"{PREFIX}.command.FreeCommand", "evento", cb=keep)
        await thief.flush()
        with pytest.raises((NoRespondersError, TimeoutError)):
            await other.request(f"{PREFIX}.command.FreeCommand", b"", timeout=0.2)
        await eventually(lambda: len(replies) > 0)
        for _ in range(2):
            await replies[0].respond(b"late")
        await thief.flush()

        assert "permissions violation" in await refusal(thief, lambda: replies[0].respond(b"once too often"))


async def test_what_a_bundle_needs_is_open_to_it(running: Gateway) -> None:
    async with running.client("orders") as orders, running.client("evento-server") as server:
        for subject in (
            "inbox.orders.1.*",
            "inbox.orders.1.inquiry.*",
            "inquiry.command.PlaceOrderCommand",
            "instance.orders.1.drain",
            "head",
        ):
            await orders.subscribe(f"{PREFIX}.{subject}", cb=nothing)
        await orders.publish(f"{PREFIX}.telemetry.orders.1", b"")
        await orders.flush()
        for subject in ("store.*", "registry.*", "registry.*.register"):
            await serve(server, f"{PREFIX}.{subject}", b"server")
        await server.subscribe(f"{PREFIX}.telemetry.>", cb=nothing_at_all)
        await server.publish(f"{PREFIX}.instance.orders.2.drain", b"")
        await server.flush()
        for subject in ("registry.catalogue", "registry.orders.register"):
            assert (await orders.request(f"{PREFIX}.{subject}", b"", timeout=20)).data == b"server"

        assert orders.refusals == []
        assert server.refusals == []


async def test_which_instances_there_are_is_not_told_to_bundles(running: Gateway, orders: Any) -> None:
    said = await refusal(orders, lambda: orders.publish(f"{PREFIX}.registry.view", b""))

    assert "permissions violation" in said


async def nothing_at_all(message: Any) -> None:
    pass


async def test_a_revoked_token_cuts_off_at_once_and_others_stay_connected(running: Gateway, orders: Any) -> None:
    async with running.client("other") as other, running.client("thief") as thief:
        running.tokens.revoke("thief")
        await running.server.reload()

        await eventually(lambda: thief.is_closed)
        assert (await other.request(f"{PREFIX}.query.OrderQuery", b"", timeout=20)).data == b"orders"
        assert other.refusals == []
        assert orders.is_connected


async def test_a_name_that_is_reserved_later_is_taken_from_who_served_it(running: Gateway) -> None:
    async with running.client("thief") as thief, running.client("other") as other:
        await serve(thief, f"{PREFIX}.command.LateCommand", b"thief")
        assert await answer(other, f"{PREFIX}.command.LateCommand") == b"thief"

        running.allow("owner", "LateCommand")
        await running.server.reload()
        async with running.client("owner") as owner:
            await serve(owner, f"{PREFIX}.command.LateCommand", b"owner")
            await eventually(lambda: len(thief.refusals) > 0)  # until NATS has taken the thief's subscription away
            answers = {await answer(other, f"{PREFIX}.command.LateCommand") for _ in range(50)}

        assert answers == {b"owner"}


async def test_the_reply_subject_of_a_request_is_not_checked(running: Gateway, orders: Any) -> None:
    """Of NATS, to know: who sends a request may have its answer sent to anybody. So it proves no identity."""
    async with running.client("thief") as thief:
        got = asyncio.get_running_loop().create_future()

        async def keep(message: Any) -> None:
            got.set_result(message.data)

        await orders.subscribe(f"{PREFIX}.inbox.orders.9.1", cb=keep)
        await orders.flush()
        await thief.publish(f"{PREFIX}.registry.thief.register", b"as orders", reply=f"{PREFIX}.inbox.orders.9.1")

        assert await asyncio.wait_for(got, 20) == b"server"
