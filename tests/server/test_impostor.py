"""An impostor that speaks the protocol itself: all that it tries is refused, and the live system does not notice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from running_server import bundle, free_settings
from shop import ItemAddCommand, OrderAggregate, OrderInvoker, OrderPlaceCommand
from waiting import eventually

from evento import AuthenticationError, CommandRejected, EventoBundle
from evento.errors import error_from_data, error_to_data
from evento.gateway.nats import Delivery, NatsConnection
from evento.gateway.nats.calls import encode
from evento.gateway.nats.registry import REGISTRY, ViewCall
from evento.gateway.nats.subjects import QUEUE
from evento.gateway.nats.wire import encode_reply
from evento.messages import Reply
from evento.messages.registration import BundleDescription, InstanceView, Register, Session
from evento.server.server import EventoServer
from evento.server.tokens import TokenFile


class Thief:
    """A bundle with a token of its own, and what it knows of a bundle that it wants to be."""

    def __init__(self, connection: NatsConnection, victim: InstanceView) -> None:
        self.connection = connection
        self.victim = victim

    async def registry(self, subject: str, operation: str, call: msgspec.Struct) -> Any:
        """Ask the registry on any subject."""
        deadline = asyncio.get_running_loop().time() + 20
        answer = REGISTRY[operation].decode_answer(await self.connection.request(subject, encode(call), deadline))
        if answer.error is not None:
            raise error_from_data(answer.error)
        return answer.value

    async def register(self, subject_of: str, bundle_id: str, instance_id: str) -> None:
        """Register a bundle with an instance."""
        call = Register(BundleDescription(bundle_id), instance_id, host="h", pid=1, started_at=1)
        await self.registry(self.connection.subjects.registration(subject_of, "register"), "register", call)

    async def end(self, operation: str, subject_of: str) -> None:
        """Speak for the victim's session."""
        call = Session(self.victim.bundle_id, self.victim.instance_id, 1)
        await self.registry(self.connection.subjects.registration(subject_of, operation), operation, call)

    async def serve(self, subject: str) -> None:
        """Take part in answering a subject."""
        await self.connection.subscribe(subject, lambda delivery: delivery.respond(b""), queue=QUEUE)

    async def answer(self, inbox: str, forged: bytes) -> None:
        """Answer the requests of others: ask oneself, and let the answers go to their inbox; guess their numbers."""
        answered: set[str] = set()

        def forge(delivery: Delivery) -> None:
            delivery.respond(forged)
            answered.add(delivery.reply)

        subjects = self.connection.subjects
        serving = await self.connection.subscribe(subjects.command("HarmlessCommand"), forge, queue=QUEUE)
        asking = await self.connection.subscribe(subjects.inquiry("command", "HarmlessCommand"), forge)
        for number in range(500):
            self.connection.publish(subjects.command("HarmlessCommand"), b"", reply=f"{inbox}.{number}")
            self.connection.publish(
                subjects.inquiry("command", "HarmlessCommand"), b"", reply=f"{inbox}.inquiry.{number}"
            )
        await eventually(lambda: len(answered) == 1000)
        await asking.drain()
        await serving.drain()

    async def send(self, subject: str) -> None:
        """Ask on a subject that only servers and terminals use."""
        await self.connection.request(subject, b"", asyncio.get_running_loop().time() + 20)


ATTEMPTS: dict[str, Callable[[Thief], Awaitable[None]]] = {
    "another bundle's name": lambda thief: thief.register("thief", "orders", "1"),
    "another bundle's name on its subject": lambda thief: thief.register("orders", "orders", "1"),
    "another bundle's instance": lambda thief: thief.register("thief", "thief", thief.victim.instance_id),
    "leave for another": lambda thief: thief.end("leave", "thief"),
    "leave for another on its subject": lambda thief: thief.end("leave", "orders"),
    "disable another": lambda thief: thief.end("disable", "thief"),
    "serve another bundle's command": lambda thief: thief.serve(thief.connection.subjects.command("ItemAddCommand")),
    "serve the store": lambda thief: thief.serve(thief.connection.subjects.store("append")),
    "serve the registry": lambda thief: thief.serve(thief.connection.subjects.registrations("heartbeat")),
    "read another's answers": lambda thief: thief.serve(
        thief.connection.subjects.inbox("orders", thief.victim.instance_id) + ".>"
    ),
    "be another's instance": lambda thief: thief.serve(
        thief.connection.subjects.instance("orders", thief.victim.instance_id, "consumers")
    ),
    "operate another's instance": lambda thief: thief.send(
        thief.connection.subjects.instance("orders", thief.victim.instance_id, "consumers")
    ),
    "learn who lives": lambda thief: thief.registry(
        thief.connection.subjects.registry("view"), "view", ViewCall("orders")
    ),
    "publish the head": lambda thief: thief.send(thief.connection.subjects.head),
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EventoServer]:
    tokens = TokenFile(tmp_path / "data" / "tokens.json")
    commands = ["OrderPlaceCommand", "ItemAddCommand", "OrderCancelCommand"]
    made = {name: tokens.create(name, serves=serves) for name, serves in (("orders", commands), ("web", None))}
    made["thief"] = tokens.create("thief")
    async with EventoServer(free_settings(tmp_path / "data")) as running:
        running.made_tokens = made  # type: ignore[attr-defined]
        yield running


def _bundle(server: EventoServer, name: str, components: Any) -> EventoBundle:
    token = server.made_tokens[name]  # type: ignore[attr-defined]
    return EventoBundle(name, components=components, server=server.gateway_url, cluster="shop", token=token)


async def _instances(server: EventoServer) -> list[InstanceView]:
    assert server._registry is not None
    return await server._registry.view()


async def _refused(attempt: Awaitable[None]) -> bool:
    try:
        await attempt
    except AuthenticationError:
        return True
    return False


async def test_all_that_an_impostor_tries_is_refused_and_nobody_notices(server: EventoServer) -> None:
    async with _bundle(server, "orders", [OrderAggregate]), _bundle(server, "web", [OrderInvoker]) as web:
        await web.commands.send(OrderPlaceCommand("ORD_1", "ann"))
        over = asyncio.Event()
        sent = 0

        async def work() -> None:
            nonlocal sent
            while not over.is_set():
                await web.commands.send(ItemAddCommand("ORD_1", "pen", 0))
                sent += 1

        working = asyncio.create_task(work())
        before = await _instances(server)
        [victim] = [one for one in before if one.bundle_id == "orders"]
        token = server.made_tokens["thief"]  # type: ignore[attr-defined]
        for instance in ("1", victim.instance_id):
            connection = NatsConnection(
                server.gateway_url, cluster="shop", user="thief", instance=instance, token=token, start_timeout=30
            )
            async with connection:
                thief = Thief(connection, victim)
                await thief.serve(f"{connection.subjects.prefix}.command.*")  # gets nothing of what is reserved
                for what, attempt in ATTEMPTS.items():
                    assert await _refused(attempt(thief)), f"not refused: {what} as instance {instance}"
        for user, secret in (("orders", token), ("orders", "wrong"), ("evento-server", token), ("thief", None)):
            with pytest.raises(AuthenticationError):
                async with bundle(server, user, secret):
                    pytest.fail(f"{user} was let in")
        done = sent

        def goes_on() -> bool:
            assert not working.done()
            return sent >= done + 10

        await eventually(goes_on)
        over.set()
        await working
        assert {one.instance_id for one in await _instances(server)} == {one.instance_id for one in before}
        assert all(one.enabled for one in await _instances(server))
        message = await web.commands.send_message(ItemAddCommand("ORD_1", "pen", 0))
        assert message is not None
        assert message.version == sent + 2


async def test_nobody_can_answer_the_requests_of_another(server: EventoServer) -> None:
    """The thief even knows the instance that he wants to deceive; what he cannot guess are the numbers of requests."""

    def connected(user: str) -> NatsConnection:
        token = server.made_tokens[user]  # type: ignore[attr-defined]
        return NatsConnection(server.gateway_url, cluster="shop", user=user, instance="1", token=token)

    async with connected("orders") as orders, connected("web") as web, connected("thief") as stealing:
        arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        await orders.subscribe(orders.subjects.command("ItemAddCommand"), arrived.put_nowait, queue=QUEUE)
        deadline = asyncio.get_running_loop().time() + 30
        asking = asyncio.create_task(web.request(web.subjects.command("ItemAddCommand"), b"", deadline))
        delivery = await arrived.get()
        thief = Thief(stealing, InstanceView("web", "1", 1, enabled=True, heartbeat_age=0))
        await thief.answer(web.inbox, encode_reply(Reply(error=error_to_data(CommandRejected("forged")))))
        delivery.respond(b"the answer")
        assert await asking == b"the answer"
