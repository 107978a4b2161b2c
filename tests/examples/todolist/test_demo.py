"""``evento demo``: the scripted run, and the served application with its traffic."""

import asyncio
import contextlib
import re
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from waiting import eventually

from evento import StoreInUse
from evento.examples.todolist import demo

# Processes start slowly on a busy machine.
pytestmark = pytest.mark.timeout(180)

ServeDemo = Callable[[Path], Awaitable[tuple[asyncio.subprocess.Process, str]]]


async def test_once_does_the_script_and_continues_on_the_same_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = await demo.once(tmp_path / "new folder")
    shown = capsys.readouterr().out
    second = await demo.once(tmp_path / "new folder")

    assert (first.commands, first.rejected) == (second.commands, second.rejected) == (13, 6)
    assert (first.events, second.events) == (17, 34)
    for message in (
        "Todo list is full",
        "Error: List contains a checked todo",
        "AggregateDeleted",
        '"completed": true',
        'Notification: You have checked the todo "Milk" (TODO_',
        "status REGISTERED",
    ):
        assert message in shown
    assert re.search(r"12 +v11 +TodoListTodoCheckedEvent .*all_checked=True", shown)
    assert re.search(r"v1 +ErpUserActivityRegisteredEvent +contributions={'ann': 8, 'bob': 2}", shown)


def test_many_notifications_are_counted_and_only_the_newest_are_kept() -> None:
    notifications = demo.Notifications()
    for number in range(1000):
        notifications.show(f"notification {number}")

    assert (notifications.count, notifications.news()[-1]) == (1000, "notification 999")
    assert notifications.news() == []


async def test_two_demos_on_one_folder_are_refused(serve_demo: ServeDemo, tmp_path: Path) -> None:
    await serve_demo(tmp_path)

    with pytest.raises(StoreInUse):
        await demo.once(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_serve_shows_traffic_until_it_is_told_to_stop(
    serve_demo: ServeDemo, tmp_path: Path, number: signal.Signals
) -> None:
    process, url = await serve_demo(tmp_path)
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:

        async def shows_lists() -> bool:
            return bool((await http.get("/todo-list/")).json())

        await eventually(shows_lists, within=60)
        process.send_signal(number)
        async with asyncio.timeout(60):
            output, errors = await process.communicate()

    assert (process.returncode, errors) == (0, b"")
    assert f"TodoList runs at {url}" in output.decode()
    assert output.decode().endswith("Stopped; all is on disk.\n")


async def test_serve_continues_on_the_same_data(serve_demo: ServeDemo, tmp_path: Path) -> None:
    done = await demo.once(tmp_path)
    process, _ = await serve_demo(tmp_path)
    process.send_signal(signal.SIGINT)
    output, _ = await process.communicate()

    assert f"({done.events} events so far)" in output.decode()


async def test_a_taken_port_is_named_with_the_mend(tmp_path: Path) -> None:
    with taken_port() as port, pytest.raises(demo.PortUnavailable) as caught:
        await demo.serve(tmp_path / "data", port)

    assert f"127.0.0.1:{port}" in str(caught.value)
    assert f"--port {port + 1}" in str(caught.value)
    assert not (tmp_path / "data").exists()


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]
