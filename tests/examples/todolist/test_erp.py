"""The registration of finished lists: the service alone, and saga, service and read model together."""

from pathlib import Path
from typing import Any

import httpx
from waiting import eventually

from evento.examples.todolist.api.erp import ErpUserActivityRegisterCommand, ErpUserActivityRegisteredEvent
from evento.examples.todolist.config import running_bundle
from evento.examples.todolist.erp import ErpService
from evento.examples.todolist.invoker import TodoListInvoker
from evento.examples.todolist.latency import SimulatedLatency
from evento.testing import service_test

COMMAND = ErpUserActivityRegisterCommand("TodoList", "TDLS_1", {"ann": 2, "bob": 1})
ANN = {"Authorization": "ann"}
BOB = {"Authorization": "bob"}


async def status_of(http: httpx.AsyncClient, identifier: str) -> tuple[Any, Any]:
    view = (await http.get(f"/todo-list/{identifier}")).json()
    return view["status"], view["registeredAt"]


async def becomes(http: httpx.AsyncClient, identifier: str, status: str) -> None:
    async def reached() -> bool:
        return bool((await status_of(http, identifier))[0] == status)

    await eventually(reached, within=30)


async def list_with_todos(http: httpx.AsyncClient, *contents: str) -> tuple[str, list[str]]:
    identifier = (await http.post("/todo-list/", json={"name": "Groceries"}, headers=ANN)).json()["identifier"]
    url = f"/todo-list/{identifier}"
    added = [await http.post(f"{url}/todo/", json={"content": content}, headers=ANN) for content in contents]
    return identifier, [f"{url}/todo/{answer.json()['identifier']}" for answer in added]


def test_the_service_registers_contributions() -> None:
    outcome = service_test(ErpService, injector={SimulatedLatency: SimulatedLatency()}).when(COMMAND)

    outcome.expect(ErpUserActivityRegisteredEvent("TodoList", "TDLS_1", {"ann": 2, "bob": 1})).expect_commands()


def test_one_registration_of_a_resource_at_a_time() -> None:
    assert COMMAND.lock_id == "ACT_TodoList_TDLS_1"


async def test_a_list_is_registered_once_all_is_checked(http: httpx.AsyncClient) -> None:
    identifier, (milk, bread) = await list_with_todos(http, "Milk", "Bread")
    await http.put(milk, headers=BOB)
    assert await status_of(http, identifier) == ("WIP", None)

    await http.put(bread, headers=BOB)
    assert (await status_of(http, identifier))[0] in {"REGISTRATION_PENDING", "REGISTERED"}

    await becomes(http, identifier, "REGISTERED")
    view = (await http.get(f"/todo-list/{identifier}")).json()
    assert view["registeredAt"] >= view["todos"][1]["completedAt"]
    assert (view["updatedBy"], view["updatedAt"]) == ("bob", view["todos"][1]["completedAt"])


async def test_a_registered_list_stays_registered(http: httpx.AsyncClient) -> None:
    identifier, (milk,) = await list_with_todos(http, "Milk")
    await http.put(milk, headers=ANN)
    await becomes(http, identifier, "REGISTERED")
    before = await status_of(http, identifier)

    added = await http.post(f"/todo-list/{identifier}/todo/", json={"content": "Bread"}, headers=ANN)
    await http.put(f"/todo-list/{identifier}/todo/{added.json()['identifier']}", headers=ANN)

    assert await status_of(http, identifier) == before


async def test_a_slow_erp_system_holds_nobody_up(tmp_path: Path) -> None:
    async with running_bundle(tmp_path, latency=SimulatedLatency(erp_per_contributor=2)) as bundle:
        lists = bundle.invoker(TodoListInvoker)
        groceries = (await lists.create_todo_list("Groceries", "ann")).identifier
        milk = (await lists.add_todo(groceries, "Milk", "ann")).identifier
        await lists.check_todo(groceries, milk, "bob")
        pending = await lists.find_todo_list_by_identifier(groceries)

        await bundle.consumers_caught_up(30)
        registered = await lists.find_todo_list_by_identifier(groceries)

    assert (pending.status.value, pending.registered_at) == ("REGISTRATION_PENDING", None)
    assert registered.status.value == "REGISTERED"


async def test_a_registration_of_what_is_no_list_changes_nothing(tmp_path: Path) -> None:
    async with running_bundle(tmp_path) as bundle:
        lists = bundle.invoker(TodoListInvoker)
        groceries = (await lists.create_todo_list("Groceries", "ann")).identifier
        await bundle.commands.send(ErpUserActivityRegisterCommand("Invoice", groceries, {"ann": 1}))
        await bundle.commands.send(ErpUserActivityRegisterCommand("TodoList", "TDLS_unknown", {"ann": 1}))
        await bundle.consumers_caught_up()

        assert (await lists.find_todo_list_by_identifier(groceries)).status.value == "WIP"
