"""The script behind ``evento demo --once``: every command and query once, most of the rules, and what follows."""

import json
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from evento import EventoError
from evento.examples.todolist.api.todo_list import RESOURCE_TYPE
from evento.examples.todolist.invoker import TodoListInvoker, Written
from evento.state_store import EventFilter
from evento.state_store.sqlite import SqliteStateStore

__all__ = ["Script"]

_FACTS = ("content", "todo_identifier", "all_checked", "contributions")


class Script:
    """Lets ann and bob work on two lists; ``commands`` and ``rejected`` count what became of their commands."""

    def __init__(self, todo_lists: TodoListInvoker, http: httpx.AsyncClient, *, say: Callable[[str], None]) -> None:
        self._lists = todo_lists
        self._http = http
        self._say = say
        self._list = ""
        self.commands = 0
        self.rejected = 0

    async def run(self) -> None:
        """Run it from the first to the last line."""
        lists = self._lists
        self._say("Through the invoker:")
        groceries = await self._does("ann creates the list 'Groceries'", lists.create_todo_list("Groceries", "ann"))
        self._list = groceries.identifier
        todos = [
            (await self._does(f"ann adds {content!r}", lists.add_todo(self._list, content, "ann"))).identifier
            for content in ("Milk", "Bread", "Apples", "Coffee", "Cheese")
        ]
        await self._may_not("ann adds a sixth todo", lists.add_todo(self._list, "Wine", "ann"))
        await self._does("bob checks 'Milk'", lists.check_todo(self._list, todos[0], "bob"))
        await self._may_not("bob checks 'Milk' again", lists.check_todo(self._list, todos[0], "bob"))
        await self._may_not("bob removes the checked 'Milk'", lists.remove_todo(self._list, todos[0], "bob"))
        await self._may_not("ann deletes the list with it", lists.delete_todo_list(self._list, "ann"))
        await self._does("bob removes 'Bread'", lists.remove_todo(self._list, todos[1], "bob"))
        for content, todo in zip(("Apples", "Coffee", "Cheese"), todos[2:], strict=True):
            await self._does(f"ann checks {content!r}", lists.check_todo(self._list, todo, "ann"))

        holiday = await self._does("bob creates the list 'Holiday'", lists.create_todo_list("Holiday", "bob"))
        await self._does("bob deletes it", lists.delete_todo_list(holiday.identifier, "bob"))
        await self._may_not("bob adds to the deleted list", lists.add_todo(holiday.identifier, "Tent", "bob"))
        await self._may_not("bob creates a list without a name", lists.create_todo_list(" ", "bob"))
        await self._ask_the_web(holiday.identifier)

    async def _ask_the_web(self, deleted: str) -> None:
        self._say("\nThrough the web application:")
        await self._get("/todo-list/?nameLike=Groc")
        await self._get(f"/todo-list/{self._list}")
        await self._get(f"/todo-list/{deleted}")

    async def show_what_followed(self, notifications: list[str]) -> None:
        """Print what observer and saga have made of it, once they are done."""
        self._say("\nA moment later, the observer has notified:")
        for body in sorted(notifications, key=lambda body: body[-20:]):
            self._say(f"  Notification: {body}")
        view = await self._lists.find_todo_list_by_identifier(self._list)
        self._say(f"\nand the saga has had the list registered in the ERP system:\n  status {view.status.value}")
        if view.registered_at is not None:
            self._say(f"  registered at {view.registered_at:%Y-%m-%dT%H:%M:%SZ}")

    async def show_events(self, store: Path) -> None:
        """Print the events of the first list, and of its registration, as the System State Store has them."""
        self._say(f"\nThe events of {self._list}:")
        async with SqliteStateStore(str(store), read_only=True) as reader:
            found = [
                await reader.search(EventFilter(aggregate_id=aggregate_id))
                for aggregate_id in (self._list, f"ACT_{RESOURCE_TYPE}_{self._list}")
            ]
        for event in [event for one in found for event in one.events]:
            payload = json.loads(event.payload)
            facts = "  ".join(f"{key}={payload[key]}" for key in _FACTS if key in payload)
            self._say(f"  {event.position:>6}  v{event.version:<3} {event.name:<30} {facts}".rstrip())
        self._say("")

    async def _does(self, what: str, command: Awaitable[Written]) -> Written:
        written = await command
        self.commands += 1
        self._say(f"  {what:<34} event {written.position}")
        return written

    async def _may_not(self, what: str, command: Awaitable[Written]) -> None:
        try:
            await command
        except EventoError as error:
            self.rejected += 1
            self._say(f"  {what:<34} {error.type}: {error}")
        else:
            raise AssertionError(f"{what}: this should have been rejected")

    async def _get(self, path: str) -> None:
        answer = await self._http.get(path)
        shown = textwrap.indent(json.dumps(answer.json(), indent=2, ensure_ascii=False), "    ")
        self._say(f"  GET {path}\n    {answer.status_code} {answer.reason_phrase}\n{shown}")
