"""The demonstration behind ``evento demo``: the application with generated traffic, or one scripted run."""

import asyncio
import shlex
import signal
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from fastapi import FastAPI

from evento import EventoError
from evento.examples.todolist.config import EVENT_STORE, running_bundle
from evento.examples.todolist.invoker import TodoListInvoker
from evento.examples.todolist.latency import SimulatedLatency
from evento.examples.todolist.notification import Notifier
from evento.examples.todolist.realtime import TodoListUpdates
from evento.examples.todolist.script import Script
from evento.examples.todolist.traffic import Traffic
from evento.examples.todolist.web import create_web
from evento.state_store.sqlite import SqliteStateStore

__all__ = ["PortUnavailable", "Summary", "once", "serve"]

HOST = "127.0.0.1"
STATUS_INTERVAL = 5.0
LATENCY = SimulatedLatency(erp_per_contributor=0.1, notification=0.05)
GRACE = 5
"""Seconds that requests in flight have to end when the demo stops."""

_WELCOME = """\
TodoList runs at {url}   (API documentation: {url}/docs)
Data: {data}   ({events:,} events so far)

  list       curl '{url}/todo-list/?nameLike=&page=0'
  create     curl -X POST {url}/todo-list/ -H 'Authorization: ann' -H 'Content-Type: application/json' -d '{{"name": "Groceries"}}'
  show       curl {url}/todo-list/TDLS_...
  add        curl -X POST {url}/todo-list/TDLS_.../todo/ -H 'Authorization: ann' -H 'Content-Type: application/json' -d '{{"content": "Milk"}}'
  check      curl -X PUT {url}/todo-list/TDLS_.../todo/TODO_... -H 'Authorization: bob'
  remove     curl -X DELETE {url}/todo-list/TDLS_.../todo/TODO_... -H 'Authorization: bob'
  delete     curl -X DELETE {url}/todo-list/TDLS_... -H 'Authorization: ann'
  follow     curl -N {url}/sse/todo-lists
  events     evento events tail --store {store}

Traffic flows: a few commands a second, some of which break a rule on purpose. Ctrl-C stops it.
"""  # noqa: E501


class Notifications(Notifier):
    """Counts the notifications and keeps those that :meth:`news` has not told yet; of many only the newest."""

    def __init__(self) -> None:
        self.count = 0
        self._news: deque[str] = deque(maxlen=100)

    def show(self, body: str) -> None:
        """Take note of a notification."""
        self.count += 1
        self._news.append(body)

    def news(self) -> list[str]:
        """Return what has come since the last call."""
        news = list(self._news)
        self._news.clear()
        return news


class PortUnavailable(EventoError):
    """The port that the demo should listen on is taken, or may not be used."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What :func:`once` has done; ``events`` is the number of events in the store afterwards."""

    commands: int
    rejected: int
    events: int
    data: Path

    def __str__(self) -> str:
        return (
            f"{self.commands} commands took effect, {self.rejected} were rejected as they should be; "
            f"the store holds {self.events:,} events.\nData: {self.data}   (run it again: it continues)"
        )


async def serve(data: Path, port: int) -> None:
    """Serve the application on ``port`` with generated traffic until SIGINT or SIGTERM, then stop cleanly.

    A second signal interrupts the stopping.

    :raises PortUnavailable: nobody can listen on the port.
    :raises StoreInUse: the demo runs already on the same data.
    """
    with _listening(port) as listener, _stop_on_signals() as stop:
        notifications, updates = Notifications(), TodoListUpdates()
        async with running_bundle(data, latency=LATENCY, notifier=notifications, updates=updates) as bundle:
            app = create_web()
            app.state.todo_lists = bundle.invoker(TodoListInvoker)
            app.state.updates = updates
            url = f"http://{HOST}:{listener.getsockname()[1]}"
            events = await _head(data / EVENT_STORE)
            store = shlex.quote(f"sqlite:{data / EVENT_STORE}")
            _say(_WELCOME.format(url=url, data=data, store=store, events=events))
            await _serve_until(stop, app, listener, url, notifications)
    _say("Stopped; all is on disk.")


async def once(data: Path) -> Summary:
    """Run the script through the invoker and the web application, printing what happens.

    :raises StoreInUse: the demo runs already on the same data.
    """
    notifications = Notifications()
    async with running_bundle(data, latency=LATENCY, notifier=notifications) as bundle:
        app = create_web()
        app.state.todo_lists = todo_lists = bundle.invoker(TodoListInvoker)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://todolist", trust_env=False) as http:
            script = Script(todo_lists, http, say=_say)
            await script.run()
            await bundle.consumers_caught_up()
            await script.show_what_followed(notifications.news())
        store = data / EVENT_STORE
        await script.show_events(store)
        return Summary(script.commands, script.rejected, await _head(store), data)


async def _serve_until(
    stop: asyncio.Event, app: FastAPI, listener: socket.socket, url: str, notifications: Notifications
) -> None:
    config = uvicorn.Config(app, lifespan="off", log_level="warning", timeout_graceful_shutdown=GRACE)
    server = _Server(config)
    async with httpx.AsyncClient(base_url=url, timeout=40.0, trust_env=False) as http:
        traffic = Traffic(http)
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve(sockets=[listener]))
            generating = [
                tasks.create_task(traffic.run()),
                tasks.create_task(_report(traffic, app.state.todo_lists, notifications)),
            ]
            stopped = tasks.create_task(stop.wait())
            await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
            _say("Stopping ...")
            for task in (*generating, stopped):
                task.cancel()
            app.state.updates.close()  # streams have no end of their own
            server.should_exit = True


async def _report(traffic: Traffic, todo_lists: TodoListInvoker, notifications: Notifications) -> None:
    """Print how things are every few seconds, and the newest notification."""
    while True:
        await asyncio.sleep(STATUS_INTERVAL)
        started = time.perf_counter()
        try:
            await todo_lists.search_todo_list(seen=traffic.position)
            lag = f"shows the last event after {(time.perf_counter() - started) * 1000:.0f} ms"
        except EventoError as error:
            lag = f"is behind: {error}"
        _say(
            f"{time.strftime('%H:%M:%S')}  commands {traffic.commands:,}  rejected {traffic.rejected:,}  "
            f"failed {traffic.failed:,}  events {traffic.position:,}  read model {lag}"
        )
        for body in notifications.news()[-1:]:
            _say(f"          notifications {notifications.count:,}, the newest: {body}")


class _Server(uvicorn.Server):
    """Leaves signals alone: the demo listens to them, because the bundle must stop after the server."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def _stop_on_signals() -> Iterator[asyncio.Event]:
    """Set the event on the first SIGINT or SIGTERM; a second one acts as if nobody listened."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM)

    def on_signal() -> None:
        stop.set()
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, on_signal)
    try:
        yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    """Take the port before anything else happens, so that a taken one costs nothing."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
            listener.listen(128)
        except (OSError, OverflowError) as error:
            other = port + 1 if 1024 <= port < 65535 else 8081
            raise PortUnavailable(
                f"cannot listen on {HOST}:{port} ({error}): use another port, such as --port {other}"
            ) from None
        yield listener
    finally:
        listener.close()


async def _head(store: Path) -> int:
    async with SqliteStateStore(str(store), read_only=True) as reader:
        return await reader.head()


def _say(text: str) -> None:
    print(text, flush=True)
