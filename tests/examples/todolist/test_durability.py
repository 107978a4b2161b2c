"""The application's data: it continues after a restart, and survives being killed at any moment."""

import asyncio
import contextlib
import json
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import create_async_engine
from waiting import eventually

from evento.examples.todolist.api.todo_list import TodoListStatus
from evento.examples.todolist.config import EVENT_STORE, READ_MODEL, running_bundle
from evento.examples.todolist.model import tables, todo_lists
from evento.state_store.sqlite import SqliteStateStore

ANN = {"Authorization": "ann"}
KILLS = 5

Application = Callable[[Path], AbstractAsyncContextManager[httpx.AsyncClient]]


async def read_model(data: Path) -> dict[str, list[Any]]:
    """Return every row of every table of the read model, once it has caught up with the events."""
    async with running_bundle(data) as bundle:
        await bundle.consumers_caught_up(30)
    engine = create_async_engine(f"sqlite+aiosqlite:///{data / READ_MODEL}")
    try:
        async with engine.connect() as connection:
            return {
                table.name: sorted(map(tuple, await connection.execute(select(table))), key=repr)
                for table in tables.sorted_tables
            }
    finally:
        await engine.dispose()


async def replayed(data: Path, other: Path) -> dict[str, list[Any]]:
    """Return the read model that the events of ``data`` give when it is built from the first one on."""
    other.mkdir()
    for file in data.glob(f"{EVENT_STORE}*"):
        shutil.copy(file, other)
    return await read_model(other)


async def created_identifiers(data: Path) -> Counter[str]:
    """Count how often the events say that a list or todo was created."""
    async with SqliteStateStore(str(data / EVENT_STORE), read_only=True) as store:
        page = await store.fetch(0, limit=100_000, max_bytes=2**30)
    assert page.scanned_to == page.head
    payloads = [(event.name, json.loads(event.payload)) for event in page.events]
    return Counter(
        payload["identifier"] if name == "TodoListCreatedEvent" else payload["todo_identifier"]
        for name, payload in payloads
        if name in {"TodoListCreatedEvent", "TodoListTodoAddedEvent"}
    )


async def test_a_restart_continues(application: Application, tmp_path: Path) -> None:
    async with application(tmp_path) as http:
        identifier = (await http.post("/todo-list/", json={"name": "Groceries"}, headers=ANN)).json()["identifier"]
        added = await http.post(f"/todo-list/{identifier}/todo/", json={"content": "Milk"}, headers=ANN)
        before = (await http.get(f"/todo-list/{identifier}")).json()

    async with application(tmp_path) as http:
        assert (await http.get(f"/todo-list/{identifier}")).json() == before
        checked = await http.put(f"/todo-list/{identifier}/todo/{added.json()['identifier']}", headers=ANN)
        assert (checked.status_code, checked.headers["X-Evento-Position"]) == (202, "4")
        assert (await http.get(f"/todo-list/{identifier}")).json()["todos"][0]["completed"]


async def test_the_read_model_equals_a_replay(application: Application, tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with application(data) as http:
        for name in ("Groceries", "Holiday", "Garden"):
            path = f"/todo-list/{(await http.post('/todo-list/', json={'name': name})).json()['identifier']}"
            added = [await http.post(f"{path}/todo/", json={"content": str(n)}) for n in range(3)]
            first, second, third = (answer.json()["identifier"] for answer in added)
            await http.delete(f"{path}/todo/{first}", headers=ANN)
            if name == "Holiday":
                await http.delete(path)
            else:
                await http.put(f"{path}/todo/{second}", headers=ANN)
            if name == "Garden":
                await http.put(f"{path}/todo/{third}", headers=ANN)

    shown = await read_model(data)

    assert [len(rows) for rows in shown.values()] == [2, 4]
    status = list(todo_lists.c).index(todo_lists.c.status)
    assert {row[status] for row in shown[todo_lists.name]} == {TodoListStatus.WIP, TodoListStatus.REGISTERED}
    assert await replayed(data, tmp_path / "replay") == shown


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_killed_at_any_moment_nothing_acknowledged_is_lost(serve_demo: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    acknowledged: set[str] = set()
    wanted = 0

    def enough() -> bool:
        return len(acknowledged) >= wanted

    for _ in range(KILLS):
        process, url = await serve_demo(data)
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:
            writers = [asyncio.create_task(_write(http, acknowledged)) for _ in range(4)]
            wanted += 25
            await eventually(enough, within=60)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            await asyncio.gather(*writers)

    created = await created_identifiers(data)
    assert [identifier for identifier in acknowledged if created[identifier] != 1] == []
    shown = await read_model(data)
    assert await replayed(data, tmp_path / "replay") == shown


async def _write(http: httpx.AsyncClient, acknowledged: set[str]) -> None:
    """Create lists with todos and note what was acknowledged, until the server is gone."""
    with contextlib.suppress(httpx.TransportError):
        while True:
            created = (await http.post("/todo-list/", json={"name": "Groceries"}, headers=ANN)).json()["identifier"]
            acknowledged.add(created)
            for content in ("Milk", "Bread"):
                added = await http.post(f"/todo-list/{created}/todo/", json={"content": content}, headers=ANN)
                acknowledged.add(added.json()["identifier"])
