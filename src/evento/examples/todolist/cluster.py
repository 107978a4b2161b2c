"""The TodoList as a cluster on this machine: PostgreSQL, two servers, three bundles, each a process of its own.

``python -m evento.examples.todolist.cluster`` starts them all with generated traffic and prints what flows, until
Ctrl-C or for ``--seconds``. Its data is in a folder for the time being; nothing is kept.
"""

import argparse
import asyncio
import contextlib
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx

from evento.examples.todolist.traffic import Traffic
from evento.gateway.nats import NatsConnection
from evento.messages import EventRecord, new_id
from evento.state_store.remote import RemoteStateStore
from evento.testing.postgres import PostgresServer, free_port, start_postgres

__all__ = ["main"]

CLUSTER = "evento-server"
READY_SECONDS = 60.0
STOP_SECONDS = 40.0
STATUS_SECONDS = 5.0
_EVENTO = [sys.executable, "-c", "import sys; from evento.cli import main; sys.exit(main())"]


class Node:
    """Where one server listens."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.gateway, self.http, self.routes = free_port(), free_port(), free_port()
        self.url = f"nats://127.0.0.1:{self.gateway}"


async def run(seconds: float | None) -> None:
    """Run the whole cluster until it is stopped, or for so many seconds."""
    stop = _stop_on_signals()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evento-cluster-")))
        _say("PostgreSQL starts ...")
        postgres = await asyncio.to_thread(_database, folder)
        stack.push_async_callback(asyncio.to_thread, postgres.stop)
        nodes = [Node("server-a"), Node("server-b")]
        secret = secrets.token_hex(16)
        for node in nodes:
            await stack.enter_async_context(_server(node, nodes, folder, postgres.url, secret))
        for node in nodes:
            await _answers(f"http://127.0.0.1:{node.http}/health/ready")
            _say(f"{node.name} is ready: gateway {node.url}, http://127.0.0.1:{node.http}/metrics")
        servers = ",".join(node.url for node in nodes)
        environment = {
            "EVENTO_SERVER": servers,
            "TODOLIST_DATABASE": postgres.url.replace("postgresql://", "postgresql+asyncpg://"),
        }
        split = "evento.examples.todolist.split"
        for name in ("commands", "reactions"):
            await stack.enter_async_context(_process(name, [*_EVENTO, "run", f"{split}:{name}"], environment))
        port = free_port()
        uvicorn = [sys.executable, "-m", "uvicorn", "--factory", f"{split}:web", "--log-level", "warning"]
        options = ["--port", str(port), "--timeout-graceful-shutdown", "5"]
        await stack.enter_async_context(_process("queries", [*uvicorn, *options], environment))
        url = f"http://127.0.0.1:{port}"
        await _answers(f"{url}/todo-list/")
        _say(f"The TodoList runs: {url}/docs\n\nTraffic flows; Ctrl-C stops it.\n")
        await _follow(servers, url, stop, seconds)
        _say("Stopping ...")
    _say("Stopped.")


def _database(folder: Path) -> PostgresServer:
    folder.chmod(0o755)  # PostgreSQL may have to run as another user
    place = folder / "postgres"
    place.mkdir()
    return start_postgres(place)


async def _follow(servers: str, url: str, stop: asyncio.Event, seconds: float | None) -> None:
    """Print each event as the store has it, and every few seconds how things are."""
    async with (
        NatsConnection(servers, cluster=CLUSTER, user="evento-admin", instance=new_id()) as connection,
        RemoteStateStore(connection) as store,
        httpx.AsyncClient(base_url=url, timeout=40.0, trust_env=False) as http,
    ):
        traffic = Traffic(http)
        tasks = [
            asyncio.create_task(traffic.run()),
            asyncio.create_task(_print_events(store)),
            asyncio.create_task(_print_status(traffic)),
        ]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                stopped = asyncio.create_task(stop.wait())
                try:
                    await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    stopped.cancel()
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error
        _say(f"{traffic.commands} commands took effect, {traffic.rejected} were rejected, {traffic.failed} failed")


async def _print_events(store: RemoteStateStore) -> None:
    position = await store.head()
    while True:
        await store.wait(position, 5.0)
        page = await store.fetch(position)
        for event in page.events:
            _say(_line(event))
        position = page.scanned_to


def _line(event: EventRecord) -> str:
    return f"{event.position:>7}  {event.name:<32} {event.aggregate_id or ''}"


async def _print_status(traffic: Traffic) -> None:
    while True:
        await asyncio.sleep(STATUS_SECONDS)
        _say(
            f"{time.strftime('%H:%M:%S')}  commands {traffic.commands:,}  rejected {traffic.rejected:,}  "
            f"failed {traffic.failed:,}"
        )


@asynccontextmanager
async def _server(node: Node, nodes: list[Node], folder: Path, store: str, secret: str) -> AsyncIterator[None]:
    others = [f"nats://127.0.0.1:{other.routes}" for other in nodes if other is not node]
    arguments = [
        *("--gateway", f"127.0.0.1:{node.gateway}", "--http", f"127.0.0.1:{node.http}"),
        *("--data", str(folder / node.name), "--instance-id", node.name),
        *("--cluster-listen", f"127.0.0.1:{node.routes}", "--cluster-routes", ",".join(others)),
        *("--log-level", "warning"),
    ]
    environment = {"EVENTO_ES_STORE": store, "EVENTO_ES_CLUSTER_SECRET": secret}
    async with _process(node.name, [*_EVENTO, "server", *arguments], environment):
        yield


@asynccontextmanager
async def _process(name: str, command: list[str], environment: Mapping[str, str]) -> AsyncIterator[None]:
    """Run a process, and print what it says with its name before it; end it at the end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for us, who stop them in order
    )
    printing = asyncio.create_task(_print_output(name, process))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            _say(f"{name} did not end within {STOP_SECONDS:g} s and is killed")
            process.kill()
            await process.wait()
        await printing


async def _print_output(name: str, process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None  # noqa: S101 - asked for above
    async for line in process.stdout:
        _say(f"[{name}] {line.decode(errors='replace').rstrip()}")


async def _answers(url: str) -> None:
    """Wait until an address answers with success."""
    async with asyncio.timeout(READY_SECONDS), httpx.AsyncClient(trust_env=False) as http:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await http.get(url, timeout=10.0)).is_success:
                    return
            await asyncio.sleep(0.1)


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m evento.examples.todolist.cluster", description=__doc__)
    parser.add_argument("--seconds", type=float, help="stop after so long; default: at Ctrl-C")
    asyncio.run(run(parser.parse_args().seconds))


if __name__ == "__main__":
    main()
