"""The TodoList application on real files, in this process and in processes of its own."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from ports import free_port
from waiting import eventually

from evento.examples.todolist.app import create_app

SERVE = """
import asyncio, pathlib, sys
from evento.examples.todolist.demo import serve
asyncio.run(serve(pathlib.Path(sys.argv[1]), int(sys.argv[2])))
"""


class Served(NamedTuple):
    """The served demo in a process of its own."""

    process: asyncio.subprocess.Process
    url: str


@asynccontextmanager
async def running(data: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(data)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://todolist") as http,
    ):
        yield http


@pytest.fixture
def application() -> Callable[[Path], AbstractAsyncContextManager[httpx.AsyncClient]]:
    """Start the application on a folder and yield a client of it; stop it at the end."""
    return running


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the running application."""
    async with running(tmp_path) as client:
        yield client


@pytest.fixture
async def serve_demo() -> AsyncIterator[Callable[[Path], Awaitable[Served]]]:
    """Serve the demo on a folder in a process of its own, which is killed at the end at the latest."""
    started: list[asyncio.subprocess.Process] = []

    async def serve(data: Path) -> Served:
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", SERVE, str(data), str(port)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        started.append(process)
        served = Served(process, f"http://127.0.0.1:{port}")
        await answers(served)
        return served

    yield serve
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def answers(served: Served) -> None:
    async with httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=30) as http:

        async def serves() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (await http.get("/todo-list/")).status_code == 200
            assert served.process.returncode is None, (await served.process.communicate())[1].decode()
            return False

        await eventually(serves, within=60)
