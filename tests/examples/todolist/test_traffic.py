"""The generated traffic: every kind of request, broken rules among them, and nothing that fails."""

import asyncio

import httpx
import pytest

from evento.examples.todolist.traffic import Traffic


@pytest.mark.timeout(180)
async def test_traffic_changes_lists_and_breaks_rules_now_and_then(http: httpx.AsyncClient) -> None:
    traffic = Traffic(http, seed=1)
    for _ in range(300):
        await traffic.step()

    assert 200 < traffic.commands <= traffic.position
    assert traffic.rejected > 5
    assert traffic.failed == 0
    assert 0 < len((await http.get("/todo-list/")).json()) <= 15


async def test_traffic_goes_on_with_the_lists_that_are_there(http: httpx.AsyncClient) -> None:
    created = (await http.post("/todo-list/", json={"name": "Groceries"})).json()["identifier"]
    traffic = Traffic(http, seed=3)
    while not (await http.get(f"/todo-list/{created}")).json().get("todos"):
        await traffic.step()


async def test_failures_are_counted_and_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evento.examples.todolist.traffic._BACK_OFF", 0)
    failures = asyncio.Event()

    def refuse(request: httpx.Request) -> httpx.Response:
        if traffic.failed == 3:
            failures.set()
        return httpx.Response(503)

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse), base_url="http://todolist") as http:
        traffic = Traffic(http)
        running = asyncio.create_task(traffic.run())
        await failures.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert (traffic.commands, traffic.rejected) == (0, 0)
