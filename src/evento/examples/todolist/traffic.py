"""Generated traffic: a calm, endless stream of requests by a handful of users, who now and then break a rule."""

import asyncio
import random
from typing import Any

import httpx

from evento.examples.todolist.aggregate import MAX_TODOS
from evento.examples.todolist.web import POSITION_HEADER

__all__ = ["Traffic"]

_USERS = ("ann", "bob", "carol", "dave", "eve")
_NAMES = ("Groceries", "Holiday", "Garden", "Release", "Moving house", "Birthday", "Reading list", "Repairs")
_TODOS = ("Milk", "Book a room", "Water the roses", "Write the notes", "Call the bank", "Bake a cake", "Fix the lamp")
_WORKING_SET = 8
_CARELESS = 0.15
_PAUSE = (0.1, 0.5)
_BACK_OFF = 1.0

_Change = tuple[str, str, dict[str, str] | None]
"""Method, path and body of a request."""


class Traffic:
    """Sends a few commands a second, one after another, over HTTP.

    ``commands``, ``rejected`` (a broken rule) and ``failed`` (anything else) count; ``position`` is that of the last
    event. It works on a few lists at a time, first on those that it finds.
    """

    def __init__(self, http: httpx.AsyncClient, *, seed: int | None = None) -> None:
        self._http = http
        self._random = random.Random(seed)  # noqa: S311 - no secret is made of it
        self._lists: list[str] = []
        self._resumed = False
        self.commands = 0
        self.rejected = 0
        self.failed = 0
        self.position = 0

    async def run(self) -> None:
        """Send requests until cancelled; failures are counted and waited out."""
        while True:
            try:
                await self.step()
                pause = self._random.uniform(*_PAUSE)
            except httpx.HTTPError:
                self.failed += 1
                pause = _BACK_OFF
            await asyncio.sleep(pause)

    async def step(self) -> None:
        """Send one command, after a look at the list that it is for."""
        if not self._resumed:
            await self._resume()
        if not self._lists or (len(self._lists) < _WORKING_SET and self._random.random() < 0.2):
            await self._create()
            return
        identifier = self._random.choice(self._lists)
        answer = await self._http.get(f"/todo-list/{identifier}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            self._lists.remove(identifier)
            return
        await self._change(answer.raise_for_status().json())

    async def _resume(self) -> None:
        """Go on with the newest lists that are there."""
        found = (await self._http.get("/todo-list/")).raise_for_status().json()
        self._lists = [item["identifier"] for item in found[:_WORKING_SET]]
        self._resumed = True

    async def _create(self) -> None:
        answer = await self._send("POST", "/todo-list/", {"name": self._random.choice(_NAMES)})
        if answer.status_code == httpx.codes.CREATED:
            self._lists.append(answer.json()["identifier"])

    async def _change(self, view: dict[str, Any]) -> None:
        allowed, forbidden = self._choices(view)
        if not allowed:
            self._lists.remove(view["identifier"])  # all is done
        careless = not allowed or (forbidden and self._random.random() < _CARELESS)
        await self._send(*self._random.choice(forbidden if careless else allowed))

    def _choices(self, view: dict[str, Any]) -> tuple[list[_Change], list[_Change]]:
        """Return what can be done with a list within the rules, the likely more than once, and against them."""
        path = f"/todo-list/{view['identifier']}"
        add = ("POST", f"{path}/todo/", {"content": self._random.choice(_TODOS)})
        delete = ("DELETE", path, None)
        checked = [f"{path}/todo/{todo['identifier']}" for todo in view["todos"] if todo["completed"]]
        unchecked = [f"{path}/todo/{todo['identifier']}" for todo in view["todos"] if not todo["completed"]]
        full = len(view["todos"]) == MAX_TODOS

        allowed: list[_Change] = [("PUT", todo, None) for todo in unchecked]
        allowed += [("DELETE", todo, None) for todo in unchecked[:1]] + [add] * (0 if full else 5)
        forbidden: list[_Change] = [(method, todo, None) for todo in checked for method in ("PUT", "DELETE")]
        forbidden += [add] * full
        (forbidden if checked else allowed).append(delete)
        return allowed, forbidden

    async def _send(self, method: str, path: str, body: dict[str, str] | None = None) -> httpx.Response:
        headers = {"Authorization": self._random.choice(_USERS)}
        answer = await self._http.request(method, path, json=body, headers=headers)
        if answer.status_code == httpx.codes.CONFLICT:
            self.rejected += 1
            return answer
        answer.raise_for_status()
        self.commands += 1
        self.position = max(self.position, int(answer.headers[POSITION_HEADER]))
        return answer
