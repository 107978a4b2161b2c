"""The queue of appends: what waits has an end, and what cannot be sent fails alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from waiting import eventually

from evento.errors import PayloadError, StoreUnavailable
from evento.state_store import Append, Deleted
from evento.state_store.remote.appends import AppendQueue, Outcome
from evento.testing.conformance.state_store.support import append, new_event


class Server:
    """Where appends are sent to: it answers when it may, and refuses what is named "Wrong"."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.received: list[list[Append]] = []

    async def send(self, appends: Sequence[Append]) -> Sequence[Outcome]:
        self.received.append(list(appends))
        await self.may_answer.wait()
        if any(append.event.name == "Wrong" for append in appends):
            raise PayloadError("it cannot be encoded")
        return [Deleted(len(append.event.payload)) for append in appends]


async def test_what_is_not_sent_in_time_fails_definitely() -> None:
    server = Server()
    queue = AppendQueue(server.send, max_requests=1)
    first = queue.submit(append())
    await eventually(lambda: len(server.received) > 0)
    queue._max_wait = 0.0  # from now on: it is over when the first one is answered, which is when the queue looks
    second = queue.submit(append())
    server.may_answer.set()
    assert isinstance(await first, Deleted)
    with pytest.raises(StoreUnavailable, match="was not sent") as caught:
        await second
    assert caught.value.definite
    assert len(server.received) == 1
    await queue.close()


async def test_one_that_cannot_be_sent_costs_the_others_few_requests() -> None:
    server = Server()
    server.may_answer.set()
    queue = AppendQueue(server.send)
    futures = [queue.submit(Append(new_event(name="Wrong" if number == 300 else "Right"))) for number in range(512)]
    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert [number for number, outcome in enumerate(outcomes) if isinstance(outcome, PayloadError)] == [300]
    assert len(server.received) < 25
    sent = [append.event.event_id for batch in server.received if len(batch) < 512 for append in batch]
    assert len(sent) > 512  # halves of halves


async def test_closing_waits_without_spinning_for_what_is_held_back() -> None:
    server = Server()
    server.may_answer.set()
    queue = AppendQueue(server.send)
    async with asyncio.timeout(10):
        async with queue.held_back("c1"):
            held = queue.submit(append(command_id="c1"))
            closing = asyncio.ensure_future(queue.close())
            await asyncio.sleep(0)
            awaited = closing.get_coro().cr_await  # type: ignore[union-attr]
            for _ in range(5):
                await asyncio.sleep(0)
            assert closing.get_coro().cr_await is awaited  # type: ignore[union-attr]
        assert isinstance(await held, Deleted)
        await closing


async def test_an_append_whose_caller_went_away_is_still_waited_for() -> None:
    server = Server()
    queue = AppendQueue(server.send)
    gone = queue.submit(append(command_id="c1"))
    await asyncio.sleep(0)
    gone.cancel()
    entered = asyncio.Event()

    async def reject() -> None:
        async with queue.held_back("c1"):
            entered.set()

    rejecting = asyncio.ensure_future(reject())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not entered.is_set()
    server.may_answer.set()
    await rejecting
    await queue.close()


async def test_cancelled_requests_leave_no_append_without_an_answer() -> None:
    server = Server()
    queue = AppendQueue(server.send)
    futures = [queue.submit(append()) for _ in range(4)]
    await eventually(lambda: len(server.received) > 0)
    for task in list(queue._requests):
        task.cancel()
    for outcome in await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 20):
        assert isinstance(outcome, StoreUnavailable)
        assert not outcome.definite
    await queue.close()
