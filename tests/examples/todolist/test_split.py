"""The application in three bundles, over a real NATS server: a user sees no difference."""

import asyncio
from pathlib import Path

import httpx
import pytest
from cluster import Cluster, a_cluster

from evento.examples.todolist import split
from evento.state_store import EventFilter

USER = {"Authorization": "ann"}


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TODOLIST_DATABASE", f"sqlite+aiosqlite:///{tmp_path / 'readmodel.db'}")


async def finished(cluster: Cluster, name: str) -> None:
    """Wait until an event of a name is there."""
    async with asyncio.timeout(30):
        head = 0
        while not (await cluster.store.search(EventFilter(name=name))).events:
            head = await cluster.store.wait(head, 1.0)


async def test_a_list_goes_through_all_three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_cluster(tmp_path, name="evento-server") as cluster:
        monkeypatch.setenv("EVENTO_SERVER", cluster.url)
        app = split.web()
        async with (
            split.commands(),
            split.reactions(),
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://todolist") as http,
        ):
            created = await http.post("/todo-list/", json={"name": "Groceries"}, headers=USER)
            assert created.status_code == 201
            path = f"/todo-list/{created.json()['identifier']}"
            added = await http.post(f"{path}/todo/", json={"content": "Milk"}, headers=USER)
            assert (await http.post("/todo-list/", json={"name": " "}, headers=USER)).status_code == 422
            checked = await http.put(f"{path}/todo/{added.json()['identifier']}", headers=USER)
            assert checked.status_code == 202
            assert (await http.delete(path, headers=USER)).status_code == 409
            await finished(cluster, "ErpUserActivityRegisteredEvent")
            seen = {"X-Evento-Position": str(await cluster.store.head())}
            view = (await http.get(path, headers=seen)).json()
            assert view["status"] == "REGISTERED"
            assert [todo["content"] for todo in view["todos"]] == ["Milk"]
            running = {instance.bundle_id for instance in await cluster.registry.view()}
            assert running == {"ToDoList-Commands", "ToDoList-Queries", "ToDoList-Reactions"}
