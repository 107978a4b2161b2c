# ruff: noqa: D102, S101 - tests say what they test in their names, and assert
"""What every message bus must do.

Subclass the suite in your tests and give it buses::

    class TestMyBus(MessageBusConformance):
        @pytest.fixture
        async def new_bus(self):
            async with AsyncExitStack() as stack:
                async def open_one():
                    return await stack.enter_async_context(MyBus(...))
                yield open_one

All buses of one test reach each other. Buses between processes take the larger suite,
:class:`DistributedBusConformance`. Tests run under pytest-asyncio with ``asyncio_mode = "auto"``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import pytest

from evento.errors import CommandRejected, DefinitionError, HandlerNotFound, error_from_data, error_to_data
from evento.gateway import MessageBus, RequestHandler
from evento.messages import EventRecord, Metadata, Reply, Request

__all__ = ["DistributedBusConformance", "MessageBusConformance"]

NewBus: TypeAlias = Callable[[], Awaitable[MessageBus]]

RECORD = EventRecord(
    position=2**53 + 1,
    context="eu",
    aggregate_id="ORD_1 \N{SNOWMAN}",
    version=7,
    name="OrderPlacedEvent",
    schema_version=3,
    kind="domain",
    payload=b'{ "as":"written", "n":1.0 }',
    metadata=b'{"user":"ann"}',
    event_id="event-1",
    command_id="command-1",
    correlation_id="correlation-1",
    causation_id="command-1",
    timestamp=1_700_000_000_123_456,
)


def request_of(name: str = "OrderPlaceCommand", *, kind: str = "command", **changes: Any) -> Request:
    """Return a request as a gateway makes it."""
    values: dict[str, Any] = {
        "payload": b'{"order_id":"ORD_1"}',
        "metadata": Metadata(),
        "message_id": "message-1",
        "correlation_id": "message-1",
        "causation_id": None,
        "timestamp": 1_700_000_000_000_000,
    }
    return Request(kind=kind, name=name, **values | changes)


def answering(reply: Reply, seen: list[Request] | None = None) -> RequestHandler:
    """Return a handler that always gives the same reply."""

    async def handle(request: Request, deadline: float) -> Reply:
        if seen is not None:
            seen.append(request)
        return reply

    return handle


def soon(seconds: float = 30.0) -> float:
    """Return a deadline."""
    return asyncio.get_running_loop().time() + seconds


class Gate:
    """A handler that waits until it is opened, and keeps what came."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.deadlines: list[float] = []
        self.cancelled = 0
        self._opened = asyncio.Event()
        self._changed = asyncio.Event()

    async def __call__(self, request: Request, deadline: float) -> Reply:
        self.requests.append(request)
        self.deadlines.append(deadline)
        self._changed.set()
        try:
            await self._opened.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            self._changed.set()
            raise
        return Reply(view=b"opened")

    def open(self) -> None:
        """Let all that wait answer."""
        self._opened.set()

    async def until(self, *, entered: int = 0, cancelled: int = 0) -> None:
        """Wait until so many have come, or were cancelled."""
        while len(self.requests) < entered or self.cancelled < cancelled:
            self._changed.clear()
            await self._changed.wait()


class MessageBusConformance:
    """The suite; see the module's text. Several buses of one test may be the same one."""

    @pytest.fixture
    def new_bus(self) -> NewBus:
        """Give what opens a bus: to be overridden, usually by an async fixture."""
        raise NotImplementedError

    async def test_requests_go_by_kind_and_name(self, new_bus: NewBus) -> None:
        bus, other = await new_bus(), await new_bus()
        for number, (kind, name) in enumerate([("command", "A"), ("command", "B"), ("query", "A"), ("query", "a.*>")]):
            await bus.serve(kind, name, answering(Reply(view=b"%d" % number)))
        for number, (kind, name) in enumerate([("command", "A"), ("command", "B"), ("query", "A"), ("query", "a.*>")]):
            reply = await other.request(request_of(name, kind=kind), soon())
            assert reply.view == b"%d" % number

    async def test_all_that_a_request_says_arrives(self, new_bus: NewBus) -> None:
        bus, other = await new_bus(), await new_bus()
        seen: list[Request] = []
        await bus.serve("command", "A", answering(Reply(), seen))
        request = request_of(
            "A",
            payload=b'{ "as":"written",\n"n":1.0,"big":123456789012345678901234567890 }',
            metadata=Metadata({"user": "ann \N{SNOWMAN}", "tenant": '"\\u0041'}),
            message_id="key " + "k" * 190,
            correlation_id="c",
            causation_id="d",
            timestamp=1,
            keyed=True,
            attempt=3,
            boundaries=("ORD_1", "LOCK"),
            depth=2,
            at_least=2**53 + 1,
        )
        await other.request(request, soon())
        assert seen == [request]
        assert isinstance(seen[0].metadata, Metadata)

    async def test_all_that_a_reply_says_arrives(self, new_bus: NewBus) -> None:
        bus, other = await new_bus(), await new_bus()
        replies = [Reply(), Reply(event=RECORD), Reply(view=b'[ 1.0,"\\u0041" ]'), Reply(view=b"")]
        for number, reply in enumerate(replies):
            await bus.serve("query", str(number), answering(reply))
        for number, reply in enumerate(replies):
            assert await other.request(request_of(str(number), kind="query"), soon()) == reply

    async def test_errors_are_data(self, new_bus: NewBus) -> None:
        bus, other = await new_bus(), await new_bus()

        class ListIsFull(CommandRejected):
            pass

        error = ListIsFull("full \N{SNOWMAN}", size=5, parts=[1, "a", None, {"b": 2**70}])
        error.definite = False
        data = error_to_data(error, with_traceback=True)
        await bus.serve("command", "A", answering(Reply(error=data)))
        reply = await other.request(request_of("A"), soon())
        assert reply.error == data
        raised = error_from_data(data)
        assert type(raised) is CommandRejected
        assert raised.type == "ListIsFull"
        assert not raised.definite

    async def test_a_name_that_nobody_serves_is_a_definite_error(self, new_bus: NewBus) -> None:
        bus, other = await new_bus(), await new_bus()
        await bus.serve("command", "A", answering(Reply()))
        with pytest.raises(HandlerNotFound) as caught:
            await other.request(request_of("A", kind="query"), soon(0.3))
        assert caught.value.definite
        assert caught.value.data == {"kind": "query", "name": "A"}

    async def test_serving_a_name_twice_is_refused(self, new_bus: NewBus) -> None:
        bus = await new_bus()
        await bus.serve("command", "A", answering(Reply(view=b"first")))
        with pytest.raises(DefinitionError, match="handled twice"):
            await bus.serve("command", "A", answering(Reply(view=b"second")))
        assert (await bus.request(request_of("A"), soon())).view == b"first"

    async def test_a_withdrawn_name_is_not_served_but_what_runs_ends(self, new_bus: NewBus) -> None:
        bus, other = await new_bus(), await new_bus()
        gate = Gate()
        await bus.serve("command", "A", gate)
        await bus.serve("command", "B", answering(Reply(view=b"still")))
        waiting = asyncio.create_task(other.request(request_of("A"), soon()))
        await gate.until(entered=1)
        await bus.withdraw("command", "A")
        with pytest.raises(HandlerNotFound):
            await other.request(request_of("A"), soon(0.3))
        assert (await other.request(request_of("B"), soon())).view == b"still"
        gate.open()
        assert (await waiting).view == b"opened"
        await bus.serve("command", "A", answering(Reply(view=b"again")))
        assert (await other.request(request_of("A"), soon())).view == b"again"

    async def test_withdrawing_what_is_not_served_does_nothing(self, new_bus: NewBus) -> None:
        await (await new_bus()).withdraw("command", "A")

    async def test_each_of_many_requests_gets_its_own_reply(self, new_bus: NewBus) -> None:
        bus, other = await new_bus(), await new_bus()

        async def echo(request: Request, deadline: float) -> Reply:
            await asyncio.sleep(0)
            return Reply(view=request.payload)

        await bus.serve("query", "A", echo)
        requests = [request_of("A", kind="query", payload=b"%d" % n, message_id=f"m{n}") for n in range(500)]
        replies = await asyncio.gather(*(other.request(request, soon()) for request in requests))
        assert [reply.view for reply in replies] == [request.payload for request in requests]

    async def test_a_handler_may_send_requests_itself(self, new_bus: NewBus) -> None:
        bus, other = await new_bus(), await new_bus()

        async def pass_on(request: Request, deadline: float) -> Reply:
            return await bus.request(request_of("B", depth=request.depth + 1), deadline)

        await bus.serve("command", "A", pass_on)
        await other.serve("command", "B", answering(Reply(view=b"from b")))
        assert (await other.request(request_of("A"), soon())).view == b"from b"

    async def test_a_cancelled_request_leaves_the_bus_as_it_was(self, new_bus: NewBus) -> None:
        bus, other = await new_bus(), await new_bus()
        gate = Gate()
        await bus.serve("command", "A", gate)
        waiting = asyncio.create_task(other.request(request_of("A"), soon()))
        await gate.until(entered=1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.open()
        assert (await other.request(request_of("A", message_id="message-2"), soon())).view == b"opened"

    async def test_the_handler_is_told_the_deadline(self, new_bus: NewBus) -> None:
        bus, other = await new_bus(), await new_bus()
        gate = Gate()
        gate.open()
        await bus.serve("command", "A", gate)
        before = soon(7.0)
        await other.request(request_of("A"), before)
        assert before - 1 < gate.deadlines[0] <= soon(7.0)

    async def test_what_has_expired_is_not_started(self, new_bus: NewBus) -> None:
        bus, other = await new_bus(), await new_bus()
        seen: list[Request] = []
        await bus.serve("command", "A", answering(Reply(), seen))
        reply = await other.request(request_of("A"), soon(-0.1))
        assert reply.error is not None
        assert reply.error.code == "RequestTimeout"
        assert reply.error.definite
        assert not seen


class DistributedBusConformance(MessageBusConformance):
    """The suite for buses between processes: each that a test opens is one of its own."""

    async def test_one_of_two_replicas_handles_a_request(self, new_bus: NewBus) -> None:
        seen: list[list[Request]] = [[], []]
        for mine in seen:
            await (await new_bus()).serve("command", "A", answering(Reply(), mine))
        other = await new_bus()
        ids = [f"m{number}" for number in range(200)]
        await asyncio.gather(*(other.request(request_of("A", message_id=id), soon()) for id in ids))
        assert sorted(request.message_id for mine in seen for request in mine) == sorted(ids)
        assert all(seen)

    async def test_the_decoded_payload_stays_where_it_is(self, new_bus: NewBus) -> None:
        bus, other = await new_bus(), await new_bus()
        seen: list[Request] = []
        await bus.serve("command", "A", answering(Reply(), seen))
        await other.request(request_of("A", decoded=object()), soon())
        assert seen[0].decoded is None
