"""What both gateways do: bounds, deadlines, causes and resends."""

from __future__ import annotations

import asyncio

import pytest
from shop import ItemAddCommand, MailSendCommand, OrderFindQuery, OrderPlaceCommand, OrderPlacedEvent

from evento import (
    CapabilityError,
    CommandGateway,
    CommandRejected,
    HandlerNotFound,
    PayloadError,
    QueryGateway,
    RequestTimeout,
    Stopped,
    TooManyPendingRequests,
)
from evento.errors import error_to_data
from evento.gateway import Handling, InProcessBus, RequestSender
from evento.gateway.handling import handling_now
from evento.gateway.requests import OpenIds
from evento.messages import InvocationMessage, Metadata, Reply, Request


class Recorder:
    """Serves a command and keeps the requests that arrive."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None

    async def __call__(self, request: Request, deadline: float) -> Reply:
        self.requests.append(request)
        if self.gate is not None:
            await self.gate.wait()
        return Reply() if self.error is None else Reply(error=error_to_data(self.error))


class Wiring:
    """Gateways on an in-process bus, with one handler behind all names."""

    def __init__(self, max_in_flight: int = 100) -> None:
        self.recorder = Recorder()
        self.bus = InProcessBus()
        self.sender = RequestSender(self.bus, max_in_flight=max_in_flight)
        self.commands = CommandGateway(self.sender, event_classes=lambda _: None)
        self.queries = QueryGateway(self.sender)

    async def serve(self) -> Wiring:
        for name in ("OrderPlaceCommand", "ItemAddCommand", "MailSendCommand"):
            await self.bus.serve("command", name, self.recorder)
        await self.bus.serve("query", "OrderFindQuery", self.recorder)
        return self


def _handling(*, may_send: bool = True) -> Handling:
    message: InvocationMessage[object] = InvocationMessage(
        {}, name="Test::run", message_id="cause", metadata=Metadata({"user": "ann"})
    )
    return Handling(message, handler="Test.run", may_send=may_send, may_query=True)


async def test_requests_in_flight_are_bounded() -> None:
    wiring = await Wiring(max_in_flight=2).serve()
    wiring.recorder.gate = asyncio.Event()
    waiting = [asyncio.create_task(wiring.commands.send(MailSendCommand("a"))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyPendingRequests, match="max_in_flight_requests") as caught:
        await wiring.commands.send(MailSendCommand("b"))
    assert caught.value.definite
    assert caught.value.data == {"limit": 2}
    wiring.recorder.gate.set()
    await asyncio.gather(*waiting)
    await wiring.commands.send(MailSendCommand("c"))
    assert wiring.sender.in_flight == 0


async def test_the_deadline_ends_the_wait_and_the_handler() -> None:
    wiring = await Wiring().serve()
    wiring.recorder.gate = asyncio.Event()
    with pytest.raises(RequestTimeout, match=r"0\.01 s") as caught:
        await wiring.commands.send(MailSendCommand("a"), timeout=0.01)
    assert not caught.value.definite
    assert wiring.sender.in_flight == 0


async def test_a_timeout_error_of_a_bus_is_not_taken_for_the_deadline() -> None:
    class BrokenBus(InProcessBus):
        async def request(self, request: Request, deadline: float) -> Reply:
            raise TimeoutError("not ours")

    gateway = CommandGateway(RequestSender(BrokenBus()), event_classes=lambda _: None)
    with pytest.raises(TimeoutError, match="not ours"):
        await gateway.send(MailSendCommand("a"))


async def test_nobody_to_handle_is_definite() -> None:
    wiring = Wiring()
    with pytest.raises(HandlerNotFound, match="OrderPlaceCommand") as caught:
        await wiring.commands.send(OrderPlaceCommand("ORD_1", "ann"))
    assert caught.value.definite


async def test_a_closed_sender_sends_nothing() -> None:
    wiring = await Wiring().serve()
    wiring.sender.close()
    with pytest.raises(Stopped):
        await wiring.commands.send(MailSendCommand("a"))
    assert wiring.recorder.requests == []


async def test_what_a_handler_sends_flows_from_what_it_handles() -> None:
    wiring = await Wiring().serve()
    token = handling_now.set(_handling())
    try:
        await wiring.commands.send(MailSendCommand("a"), metadata={"lang": "de"})
    finally:
        handling_now.reset(token)
    (request,) = wiring.recorder.requests
    assert request.metadata == {"user": "ann", "lang": "de"}
    assert (request.correlation_id, request.causation_id) == ("cause", "cause")
    assert request.keyed


async def test_a_handler_that_runs_again_sends_the_same_ids() -> None:
    wiring = await Wiring().serve()
    for _ in range(2):
        token = handling_now.set(_handling())
        try:
            await wiring.commands.send(MailSendCommand("a"))
            await wiring.commands.send(MailSendCommand("b"))
            await wiring.commands.send(ItemAddCommand("ORD_1", "tea"), message_id="given")
        finally:
            handling_now.reset(token)
    ids = [request.message_id for request in wiring.recorder.requests]
    assert ids[:3] == ids[3:]
    assert len(set(ids)) == 3
    assert ids[2] == "given"


async def test_outside_handlers_ids_are_random_and_not_keyed() -> None:
    wiring = await Wiring().serve()
    for _ in range(2):
        await wiring.commands.send(MailSendCommand("a"))
    first, second = wiring.recorder.requests
    assert first.message_id != second.message_id
    assert not first.keyed
    assert first.correlation_id == first.message_id


async def test_a_role_that_may_not_send_is_refused() -> None:
    wiring = await Wiring().serve()
    token = handling_now.set(_handling(may_send=False))
    try:
        with pytest.raises(CapabilityError, match=r"Test\.run"):
            await wiring.commands.send(MailSendCommand("a"))
    finally:
        handling_now.reset(token)


async def test_a_resend_is_one_whose_former_send_has_no_definite_answer() -> None:
    wiring = await Wiring().serve()
    wiring.recorder.gate = asyncio.Event()
    with pytest.raises(RequestTimeout):
        await wiring.commands.send(MailSendCommand("a"), message_id="id", timeout=0.01)
    wiring.recorder.gate.set()
    await wiring.commands.send(MailSendCommand("a"), message_id="id")
    await wiring.commands.send(MailSendCommand("a"), message_id="id")
    wiring.recorder.error = CommandRejected("no")
    with pytest.raises(CommandRejected):
        await wiring.commands.send(MailSendCommand("a"), message_id="other")
    with pytest.raises(CommandRejected):
        await wiring.commands.send(MailSendCommand("a"), message_id="other")
    assert [request.attempt for request in wiring.recorder.requests] == [1, 2, 1, 1, 1]


def test_open_ids_are_bounded() -> None:
    ids = OpenIds(limit=2)
    for name in ("a", "b", "c"):
        assert ids.begin(name) == 1
    assert ids.begin("a") == 1
    assert ids.begin("c") == 2
    ids.end("c")
    assert ids.begin("c") == 1


async def test_wrong_kinds_and_positions_are_payload_errors() -> None:
    wiring = await Wiring().serve()
    with pytest.raises(PayloadError, match=r"commands\.send"):
        await wiring.queries.query(OrderPlaceCommand("ORD_1", "ann"))  # type: ignore[arg-type]
    with pytest.raises(PayloadError, match=r"queries\.query"):
        await wiring.commands.send(OrderFindQuery("ORD_1"))  # type: ignore[arg-type]
    with pytest.raises(PayloadError, match="at_least"):
        await wiring.queries.query(OrderFindQuery("ORD_1"), at_least=-1)
    with pytest.raises(PayloadError, match="not a command"):
        await wiring.commands.send(OrderPlacedEvent("ORD_1", "ann"))  # type: ignore[arg-type]
