"""Real-time updates: bounded subscriptions, streams that end with their clients, and what a client sees."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from evento.examples.todolist.config import running_bundle
from evento.examples.todolist.invoker import TodoListInvoker
from evento.examples.todolist.realtime import Subscription, TodoListUpdates, Update
from evento.examples.todolist.sse import EventStream
from evento.examples.todolist.web import POSITION_HEADER

ServeDemo = Callable[[Path], Awaitable[Any]]
ANN = {"Authorization": "ann"}


async def read(subscription: Subscription) -> list[Update]:
    """Return what there is up to the end of the subscription, which must have ended."""
    return [update async for update in subscription.updates(30)]


# Subscriptions ---------------------------------------------------------------------------------------------------


async def test_subscribers_get_what_they_have_asked_for() -> None:
    updates = TodoListUpdates()
    updates.publish(Update("TDLS_1", 1))
    with updates.subscribe() as everything, updates.subscribe("TDLS_1") as one:
        for position, identifier in enumerate(("TDLS_1", "TDLS_2", "TDLS_1"), start=2):
            updates.publish(Update(identifier, position))
        updates.close()

        assert await read(everything) == [("TDLS_1", 2), ("TDLS_2", 3), ("TDLS_1", 4)]
        assert await read(one) == [("TDLS_1", 2), ("TDLS_1", 4)]
    assert updates.subscribers == 0


async def test_a_client_that_is_too_slow_loses_its_subscription_and_nobody_else_does() -> None:
    updates = TodoListUpdates(queue_size=3)
    with updates.subscribe() as slow, updates.subscribe("TDLS_2") as other:
        for position in range(1, 10):
            updates.publish(Update("TDLS_1", position))

        assert await read(slow) == [("TDLS_1", 1), ("TDLS_1", 2), ("TDLS_1", 3)]
        assert not other.ended


async def test_a_subscription_is_not_for_ever() -> None:
    with TodoListUpdates().subscribe() as subscription:
        assert [update async for update in subscription.updates(0.01)] == []


async def test_who_comes_after_the_end_is_sent_away() -> None:
    updates = TodoListUpdates()
    updates.close()
    with updates.subscribe() as late:
        assert await read(late) == []


# Streams ---------------------------------------------------------------------------------------------------------


class Client:
    """The other end of a stream."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[bytes] = asyncio.Queue()
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            self.sent.put_nowait(message["body"])

    @asynccontextmanager
    async def following(self, stream: EventStream) -> AsyncIterator[asyncio.Task[None]]:
        scope = {"type": "http", "asgi": {"spec_version": "2.3"}}
        task = asyncio.create_task(stream(scope, self.receive, self.send))
        assert (await self.sent.get()).startswith(b":")
        yield task
        await asyncio.wait_for(task, 30)


async def test_a_stream_sends_what_comes_and_ends_with_its_client() -> None:
    updates, client = TodoListUpdates(), Client()
    async with client.following(EventStream(updates, "TDLS_1")):
        updates.publish(Update("TDLS_2", 1))
        updates.publish(Update("TDLS_1", 2))
        assert await client.sent.get() == b"id: 2\nevent: message\ndata: TDLS_1\n\n"
        assert updates.subscribers == 1
        client.gone.set()
    assert updates.subscribers == 0


async def test_a_stream_ends_with_the_application() -> None:
    updates, client = TodoListUpdates(), Client()
    async with client.following(EventStream(updates)):
        updates.close()
    assert updates.subscribers == 0


async def test_a_cancelled_stream_leaves_no_subscription() -> None:
    updates, client = TodoListUpdates(), Client()
    with pytest.raises(asyncio.CancelledError):
        async with client.following(EventStream(updates)) as task:
            task.cancel()
    assert updates.subscribers == 0


# Notifications ---------------------------------------------------------------------------------------------------


async def test_a_replay_notifies_nobody(tmp_path: Path) -> None:
    async with running_bundle(tmp_path / "data") as bundle:
        lists = bundle.invoker(TodoListInvoker)
        for _ in range(3):
            await lists.create_todo_list("Groceries", "ann")
    (tmp_path / "data" / "readmodel.db").unlink()

    updates = TodoListUpdates()
    with updates.subscribe() as subscription:
        async with running_bundle(tmp_path / "data", updates=updates) as bundle:
            await bundle.consumers_caught_up()
            lists = bundle.invoker(TodoListInvoker)
            written = await lists.create_todo_list("Holiday", "ann")
            await bundle.consumers_caught_up()
        updates.close()

        assert await read(subscription) == [(written.identifier, written.position)]


async def test_each_change_is_told_with_its_position_and_seen_by_who_asks_again(tmp_path: Path) -> None:
    updates = TodoListUpdates()
    with updates.subscribe() as subscription:
        async with running_bundle(tmp_path, updates=updates) as bundle:
            lists = bundle.invoker(TodoListInvoker)
            groceries = await lists.create_todo_list("Groceries", "ann")
            async with aclosing(subscription.updates(30)) as told:
                assert await anext(told) == (groceries.identifier, groceries.position)
                for number in range(1, 6):
                    added = await lists.add_todo(groceries.identifier, f"todo {number}", "ann")
                    update = await anext(told)
                    assert update == (groceries.identifier, added.position)
                    view = await bundle.invoker(Reader).find_todo_list_by_identifier(*update)
                    assert len(view.todos) == number
                await lists.remove_todo(groceries.identifier, added.identifier, "ann")
                assert (await anext(told)).identifier == groceries.identifier
                await lists.delete_todo_list(groceries.identifier, "ann")
                assert (await anext(told)).identifier == groceries.identifier


class Reader(TodoListInvoker):
    """Another door, which has written nothing."""


@pytest.mark.timeout(180)
async def test_over_http_a_client_is_told_and_asks_again(serve_demo: ServeDemo, tmp_path: Path) -> None:
    _, url = await serve_demo(tmp_path)
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:
        created = await http.post("/todo-list/", json={"name": "Groceries"}, headers=ANN)
        identifier = created.json()["identifier"]
        async with (
            http.stream("GET", f"/sse/todo-list/{identifier}") as one,
            http.stream("GET", "/sse/todo-lists") as every,
        ):
            assert one.headers["Content-Type"].startswith("text/event-stream")
            await http.post(f"/todo-list/{identifier}/todo/", json={"content": "Milk"}, headers=ANN)
            told = [await first_message(one), await first_message(every)]
        answer = await http.get(f"/todo-list/{identifier}", headers={POSITION_HEADER: told[0]["id"]})

    assert [set(message) for message in told] == [{"id", "event", "data"}] * 2
    assert (told[0]["data"], told[0]["event"]) == (identifier, "message")
    assert told[1]["data"].startswith("TDLS_")
    assert [todo["content"] for todo in answer.json()["todos"]] == ["Milk"]


async def first_message(stream: httpx.Response) -> dict[str, str]:
    """Return the fields of the first event that is told after the creation of the list."""
    fields: dict[str, str] = {}
    async for line in stream.aiter_lines():
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            return fields
    raise AssertionError("the stream has ended")
