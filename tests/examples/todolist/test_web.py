"""The REST endpoints: what they answer to good and bad requests, on the real bundle and real files."""

import asyncio
import re
from datetime import datetime, timezone
from typing import Any

import httpx
import pytest

from evento.examples.todolist.web import POSITION_HEADER

ANN = {"Authorization": "ann"}
BOB = {"Authorization": "Bearer bob"}


async def create_list(http: httpx.AsyncClient, name: str = "Groceries") -> str:
    answer = await http.post("/todo-list/", json={"name": name}, headers=ANN)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["identifier"])


async def add_todo(http: httpx.AsyncClient, identifier: str, content: str = "Milk") -> str:
    answer = await http.post(f"/todo-list/{identifier}/todo/", json={"content": content}, headers=ANN)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["identifier"])


async def show(http: httpx.AsyncClient, identifier: str) -> dict[str, Any]:
    answer = await http.get(f"/todo-list/{identifier}")
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


def problem(answer: httpx.Response) -> tuple[int, str, str]:
    body = answer.json()
    assert set(body) == {"error", "message", "detail"}
    return answer.status_code, body["error"], body["message"]


# What works ------------------------------------------------------------------------------------------------------


async def test_a_new_list_is_shown_at_once(http: httpx.AsyncClient) -> None:
    before = datetime.now(timezone.utc)
    answer = await http.post("/todo-list/", json={"name": "Groceries"}, headers=ANN)
    created = answer.json()

    assert answer.status_code == 201
    assert set(created) == {"identifier"}
    assert re.fullmatch(r"TDLS_[0-9a-f-]{36}", created["identifier"])
    view = await show(http, created["identifier"])
    assert before <= datetime.fromisoformat(view.pop("createdAt")) <= datetime.now(timezone.utc)
    assert view == {
        "identifier": created["identifier"],
        "name": "Groceries",
        "todos": [],
        "createdBy": "ann",
        "updatedBy": None,
        "updatedAt": None,
        "status": "WIP",
        "registeredAt": None,
    }


async def test_identifiers_of_lists_are_in_the_order_of_their_creation(http: httpx.AsyncClient) -> None:
    at_once = await asyncio.gather(*(create_list(http, f"list {number}") for number in range(20)))
    later = [await create_list(http) for _ in range(3)]

    assert len({*at_once, *later}) == 23
    assert later == sorted(later)
    assert max(at_once) < later[0]


async def test_a_todo_is_added_checked_and_on_record(http: httpx.AsyncClient) -> None:
    identifier = await create_list(http)
    todo = await add_todo(http, identifier)
    checked = await http.put(f"/todo-list/{identifier}/todo/{todo}", headers=BOB)

    assert (checked.status_code, checked.content) == (202, b"")
    assert re.fullmatch(r"TODO_[0-9a-f-]{36}", todo)
    view = await show(http, identifier)
    (item,) = view["todos"]
    assert item["createdAt"] < item["completedAt"] == view["updatedAt"]
    assert item == {
        "identifier": todo,
        "content": "Milk",
        "completed": True,
        "createdBy": "ann",
        "completedBy": "Bearer bob",
        "createdAt": item["createdAt"],
        "completedAt": item["completedAt"],
    }
    assert view["updatedBy"] == "Bearer bob"


async def test_a_todo_is_removed(http: httpx.AsyncClient) -> None:
    identifier = await create_list(http)
    first, second = await add_todo(http, identifier, "Milk"), await add_todo(http, identifier, "Bread")

    removed = await http.delete(f"/todo-list/{identifier}/todo/{first}", headers=BOB)

    assert (removed.status_code, removed.content) == (204, b"")
    view = await show(http, identifier)
    assert [todo["identifier"] for todo in view["todos"]] == [second]
    assert view["updatedBy"] == "Bearer bob"


async def test_todos_are_shown_in_the_order_in_which_they_were_added(http: httpx.AsyncClient) -> None:
    identifier = await create_list(http)
    contents = ["one", "two", "three", "four", "five"]
    for content in contents:
        await add_todo(http, identifier, content)

    assert [todo["content"] for todo in (await show(http, identifier))["todos"]] == contents


async def test_a_deleted_list_is_gone(http: httpx.AsyncClient) -> None:
    identifier = await create_list(http)
    await add_todo(http, identifier)

    deleted = await http.delete(f"/todo-list/{identifier}", headers=ANN)

    assert (deleted.status_code, deleted.content) == (204, b"")
    assert problem(await http.get(f"/todo-list/{identifier}"))[:2] == (404, "NotFound")
    assert (await http.get("/todo-list/")).json() == []


async def test_who_does_not_say_who_they_are_is_anonymous(http: httpx.AsyncClient) -> None:
    created = (await http.post("/todo-list/", json={"name": "Groceries"})).json()

    assert (await show(http, created["identifier"]))["createdBy"] == "anonymous"


async def test_text_is_kept_as_it_is(http: httpx.AsyncClient) -> None:
    name = "  Käse & 'Öl' \\u0000 \N{CHEESE WEDGE} "
    identifier = await create_list(http, name)

    assert (await show(http, identifier))["name"] == name


# Search ----------------------------------------------------------------------------------------------------------


async def test_search_finds_part_of_the_name(http: httpx.AsyncClient) -> None:
    groceries, holiday = await create_list(http, "Groceries"), await create_list(http, "Holiday")

    everything = await http.get("/todo-list/")
    found = await http.get("/todo-list/", params={"nameLike": "oceri"})

    assert everything.json() == [
        {"identifier": holiday, "name": "Holiday"},
        {"identifier": groceries, "name": "Groceries"},
    ]
    assert (found.status_code, found.json()) == (200, [{"identifier": groceries, "name": "Groceries"}])
    assert (await http.get("/todo-list/", params={"nameLike": "nothing"})).json() == []


async def test_search_takes_wildcards_as_text(http: httpx.AsyncClient) -> None:
    await create_list(http, "Groceries")
    await create_list(http, "100% done_")

    for part in ("%", "_", "0% d"):
        found = (await http.get("/todo-list/", params={"nameLike": part})).json()
        assert [item["name"] for item in found] == ["100% done_"]


async def test_search_has_pages_of_fifteen(http: httpx.AsyncClient) -> None:
    for number in range(17):
        await create_list(http, f"list {number}")

    first = (await http.get("/todo-list/")).json()
    second = (await http.get("/todo-list/", params={"page": 1})).json()

    assert [item["name"] for item in first] == [f"list {number}" for number in range(16, 1, -1)]
    assert [item["name"] for item in second] == ["list 1", "list 0"]
    assert (await http.get("/todo-list/", params={"page": 2})).json() == []


# Broken rules: 409 -----------------------------------------------------------------------------------------------


async def test_a_checked_todo_stays(http: httpx.AsyncClient) -> None:
    identifier = await create_list(http)
    todo = await add_todo(http, identifier)
    path = f"/todo-list/{identifier}/todo/{todo}"
    assert (await http.put(path, headers=ANN)).status_code == 202
    before = await show(http, identifier)

    again = await http.put(path, headers=BOB)
    removed = await http.delete(path, headers=BOB)
    deleted = await http.delete(f"/todo-list/{identifier}", headers=BOB)

    assert problem(again) == (409, "CommandRejected", "Todo already checked")
    assert problem(removed) == (409, "CommandRejected", "Todo already checked")
    assert problem(deleted) == (409, "CommandRejected", "Error: List contains a checked todo")
    assert POSITION_HEADER not in deleted.headers
    assert await show(http, identifier) == before


async def test_a_list_takes_five_todos(http: httpx.AsyncClient) -> None:
    identifier = await create_list(http)
    for _ in range(5):
        await add_todo(http, identifier)

    sixth = await http.post(f"/todo-list/{identifier}/todo/", json={"content": "Wine"}, headers=ANN)

    assert problem(sixth) == (409, "CommandRejected", "Todo list is full")


async def test_a_list_takes_five_todos_also_when_all_come_at_once(http: httpx.AsyncClient) -> None:
    identifier = await create_list(http)
    url = f"/todo-list/{identifier}/todo/"

    answers = await asyncio.gather(*(http.post(url, json={"content": f"todo {n}"}, headers=ANN) for n in range(20)))

    added = [answer for answer in answers if answer.status_code == 201]
    assert len(added) == 5
    assert {problem(answer) for answer in answers if answer.status_code != 201} == {
        (409, "CommandRejected", "Todo list is full")
    }
    shown = {todo["identifier"] for todo in (await show(http, identifier))["todos"]}
    assert shown == {answer.json()["identifier"] for answer in added}


async def test_a_todo_is_checked_once_also_when_all_check_at_once(http: httpx.AsyncClient) -> None:
    identifier = await create_list(http)
    path = f"/todo-list/{identifier}/todo/{await add_todo(http, identifier)}"

    answers = await asyncio.gather(*(http.put(path, headers={"Authorization": f"user {n}"}) for n in range(10)))

    assert sorted(answer.status_code for answer in answers) == [202, *[409] * 9]
    winner = next(n for n, answer in enumerate(answers) if answer.status_code == 202)
    assert (await show(http, identifier))["todos"][0]["completedBy"] == f"user {winner}"


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_an_unknown_todo_of_a_list_breaks_a_rule(http: httpx.AsyncClient, method: str) -> None:
    identifier = await create_list(http)

    answer = await http.request(method, f"/todo-list/{identifier}/todo/TODO_unknown", headers=ANN)

    assert problem(answer) == (409, "CommandRejected", "Todo not present")


# Unknown lists: 404 ----------------------------------------------------------------------------------------------

REQUESTS = [
    ("GET", "/todo-list/{}", None),
    ("DELETE", "/todo-list/{}", None),
    ("POST", "/todo-list/{}/todo/", {"content": "Milk"}),
    ("PUT", "/todo-list/{}/todo/TODO_1", None),
    ("DELETE", "/todo-list/{}/todo/TODO_1", None),
]


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
async def test_an_unknown_list_is_not_found(http: httpx.AsyncClient, method: str, path: str, body: Any) -> None:
    status, error, message = problem(await http.request(method, path.format("TDLS_unknown"), json=body, headers=ANN))

    assert (status, error) == (404, "NotFound" if method == "GET" else "AggregateNotInitialized")
    assert "TDLS_unknown" in message


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
async def test_a_deleted_list_is_not_found(http: httpx.AsyncClient, method: str, path: str, body: Any) -> None:
    identifier = await create_list(http)
    await http.delete(f"/todo-list/{identifier}", headers=ANN)

    status, error, _ = problem(await http.request(method, path.format(identifier), json=body, headers=ANN))

    assert (status, error) == (404, "NotFound" if method == "GET" else "AggregateDeleted")


async def test_an_unknown_path_and_a_wrong_method_say_so_in_the_same_shape(http: httpx.AsyncClient) -> None:
    assert problem(await http.get("/nothing")) == (404, "NotFound", "Not Found")
    wrong = await http.patch("/todo-list/TDLS_1")
    assert problem(wrong)[:2] == (405, "MethodNotAllowed")
    assert "GET" in wrong.headers["Allow"]


# Bad input: 422 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"Groceries"',
        b"{}",
        b'{"name": null}',
        b'{"name": 5}',
        b'{"name": ["Groceries"]}',
        b'{"name": ""}',
        b'{"name": " \\t\\n"}',
        b'{"name": "\\u0000"}',
        b'{"name": "\\ud800"}',
        b'{"name": "\xff"}',
    ],
)
async def test_a_list_without_a_proper_name_is_refused(http: httpx.AsyncClient, body: bytes) -> None:
    headers = {**ANN, "Content-Type": "application/json"}

    status, _, message = problem(await http.post("/todo-list/", content=body, headers=headers))

    assert status == 422
    assert message
    assert (await http.get("/todo-list/")).json() == []


@pytest.mark.parametrize("body", [{}, {"content": ""}, {"content": " "}, {"content": 5}, {"name": "Milk"}])
async def test_a_todo_without_proper_content_is_refused(http: httpx.AsyncClient, body: Any) -> None:
    identifier = await create_list(http)

    answer = await http.post(f"/todo-list/{identifier}/todo/", json=body, headers=ANN)

    assert problem(answer)[:2] == (422, "BadInput")
    assert answer.json()["detail"][0]["where"] == "body.content"
    assert (await show(http, identifier))["todos"] == []


@pytest.mark.parametrize(
    "params",
    [*({"page": page} for page in ("-1", "x", "1.5", "1000001", "9" * 40)), {"nameLike": "%" * 2000}],
    ids=lambda params: str(params)[:20],
)
async def test_a_search_that_makes_no_sense_is_refused(http: httpx.AsyncClient, params: dict[str, str]) -> None:
    assert problem(await http.get("/todo-list/", params=params))[:2] == (422, "BadInput")


@pytest.mark.parametrize(("method", "identifier"), [("GET", "%00"), ("DELETE", "%00"), ("DELETE", "a" * 5000)])
async def test_an_identifier_that_no_list_can_have_is_refused(
    http: httpx.AsyncClient, method: str, identifier: str
) -> None:
    assert problem(await http.request(method, f"/todo-list/{identifier}"))[:2] == (422, "PayloadError")


@pytest.mark.parametrize("seen", ["-1", "x", "9" * 40])
async def test_a_position_that_is_no_position_is_refused(http: httpx.AsyncClient, seen: str) -> None:
    assert problem(await http.get("/todo-list/", headers={POSITION_HEADER: seen}))[:2] == (422, "BadInput")


async def test_unknown_fields_are_ignored(http: httpx.AsyncClient) -> None:
    answer = await http.post("/todo-list/", json={"name": "Groceries", "colour": "red"}, headers=ANN)

    assert answer.status_code == 201


# Reads after writes ----------------------------------------------------------------------------------------------


async def test_each_write_tells_its_position(http: httpx.AsyncClient) -> None:
    created = await http.post("/todo-list/", json={"name": "Groceries"}, headers=ANN)
    identifier = created.json()["identifier"]
    added = await http.post(f"/todo-list/{identifier}/todo/", json={"content": "Milk"}, headers=ANN)
    todo = added.json()["identifier"]
    checked = await http.put(f"/todo-list/{identifier}/todo/{todo}", headers=ANN)

    assert [answer.headers[POSITION_HEADER] for answer in (created, added, checked)] == ["2", "3", "4"]


async def test_reads_see_every_write_before_them(http: httpx.AsyncClient) -> None:
    async def write_and_read(number: int) -> None:
        identifier = await create_list(http, f"list {number}")
        todo = await add_todo(http, identifier)
        assert [todo["identifier"] for todo in (await show(http, identifier))["todos"]] == [todo]
        await http.put(f"/todo-list/{identifier}/todo/{todo}", headers=BOB)
        assert (await show(http, identifier))["todos"][0]["completed"]

    await asyncio.gather(*(write_and_read(number) for number in range(20)))


async def test_a_position_that_never_comes_is_waited_for_in_vain(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evento.examples.todolist.invoker.READ_TIMEOUT", 20.2)
    # The wait ends at most 50 ms before the deadline, which a busy machine may sleep through.
    monkeypatch.setattr("evento.bundle.projections.answer_by", lambda deadline: deadline - 20)

    answer = await http.get("/todo-list/", headers={POSITION_HEADER: "1000"})

    assert problem(answer)[:2] == (503, "ReadModelBehind")
    assert answer.headers["Retry-After"] == "1"


# The description -------------------------------------------------------------------------------------------------


async def test_the_description_names_seven_endpoints_and_every_schema(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()

    assert {(path, method) for path, item in document["paths"].items() for method in item} == {
        ("/todo-list/", "get"),
        ("/todo-list/", "post"),
        ("/todo-list/{identifier}", "get"),
        ("/todo-list/{identifier}", "delete"),
        ("/todo-list/{identifier}/todo/", "post"),
        ("/todo-list/{identifier}/todo/{todo_identifier}", "put"),
        ("/todo-list/{identifier}/todo/{todo_identifier}", "delete"),
    }
    schemas = document["components"]["schemas"]
    assert set(re.findall(r"#/components/schemas/(\w+)", str(document))) <= set(schemas)
    assert "createdBy" in schemas["TodoListView"]["properties"]
    assert (await http.get("/docs")).status_code == 200
