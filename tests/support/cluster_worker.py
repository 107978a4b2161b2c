"""A process of a cluster under test: ``cluster_worker.py serve|handle|watch|call|tail SITE ...``, until SIGTERM."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections import deque
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from random import Random

import msgspec
from cluster_site import CLUSTER, Site
from cluster_watchers import WATCHERS
from depot import KeptOrderAggregate
from journal import Journal, Line, Order, ask, orders
from seven_roles import Sightings
from shop import Ledger, OrderInvoker, PaymentService

from evento import EventoBundle, EventoError
from evento.bundle import services
from evento.consumers.group import ConsumerGroup
from evento.gateway.nats import NatsConnection
from evento.messages import new_id
from evento.state_store import StateStore
from evento.state_store.remote import RemoteStateStore
from evento.state_store.sqlite import SqliteStateStore

READY = b"ready\n"
CALLERS = 12
TIMEOUTS = (0.4, 1.0, 4.0)


async def until_stopped() -> None:
    """Tell that all is up, and wait for SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    os.write(1, READY)
    await stopped.wait()


def store_of(site: Site, *, read_only: bool = False) -> StateStore:
    """Make the store that the servers serve."""
    if site.database:
        from evento.state_store.postgres import PostgresStateStore

        return PostgresStateStore(site.database, read_only=read_only)
    return SqliteStateStore(site.events, read_only=read_only)


async def serve(site: Site, name: str) -> None:
    """Be an Evento Server, as ``evento server --nats`` is."""
    from evento.server.server import EventoServer  # takes its time, which the others save
    from evento.server.settings import ServerSettings
    from evento.server.values import Address

    settings = ServerSettings(
        cluster_name=CLUSTER,
        data=Path(site.folder) / name,
        http=Address("127.0.0.1", 0),
        nats=tuple(site.gateways),
        store=site.database or f"sqlite:{site.events}",
        lease=site.lease,
    )
    async with EventoServer(settings):
        await until_stopped()


async def handle(site: Site) -> None:
    """Be a replica of the bundle that handles the orders."""
    services.LEASE_SECONDS = site.lease
    bundle = EventoBundle(
        "orders",
        components=[KeptOrderAggregate, PaymentService],
        injector={Ledger: Ledger()},
        server=site.gateway,
        cluster=CLUSTER,
    )
    async with bundle:
        await until_stopped()


async def watch(site: Site) -> None:
    """Be a replica of the bundle of the consumers."""
    defaults = ConsumerGroup.__init__.__kwdefaults__
    assert defaults is not None
    defaults["lease_ttl"] = timedelta(seconds=site.lease)
    sightings = Sightings(Path(site.folder) / "sightings")
    bundle = EventoBundle(
        "watch",
        components=WATCHERS,
        injector={Sightings: sightings},
        server=site.gateway,
        cluster=CLUSTER,
        consumer_state_store=site.consumers,
    )
    async with bundle:
        await until_stopped()
    sightings.close()


async def call(site: Site) -> None:
    """Send commands from several callers at once; first those that have no answer yet."""
    journal = Journal(site.journal)
    history = journal.read()
    unanswered = deque(history.open)
    answered = [history.sent[key] for key in history.done]
    async with EventoBundle("web", components=[OrderInvoker], server=site.gateway, cluster=CLUSTER) as bundle:
        stalls = Stalls()
        tasks = [asyncio.create_task(stalls.watch())]
        callers = [
            asyncio.create_task(_caller(bundle, journal, f"{len(history.sent)}-{number}", unanswered, answered, stalls))
            for number in range(CALLERS)
        ]
        try:
            stopping = asyncio.create_task(until_stopped())
            await asyncio.wait({stopping, *callers}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*tasks, *callers):
                task.cancel()
            ended = await asyncio.gather(*callers, return_exceptions=True)
        for outcome in ended:
            if not isinstance(outcome, asyncio.CancelledError):
                raise AssertionError("a caller has ended") from outcome
    journal.close()


class Stalls:
    """Measures for how long this process did not run, or its loop did not turn: nobody can answer then."""

    TICK = 0.02

    def __init__(self) -> None:
        self.total = 0.0

    async def watch(self) -> None:
        """Measure, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(self.TICK)
            self.total += max(0.0, loop.time() - before - self.TICK)


async def _caller(
    bundle: EventoBundle,
    journal: Journal,
    prefix: str,
    unanswered: deque[Order],
    answered: list[Order],
    stalls: Stalls,
) -> None:
    random = Random(prefix)
    fresh = orders(random, prefix=prefix, aggregates="ORD")
    loop = asyncio.get_running_loop()
    while True:
        is_new = False
        if unanswered and random.random() < 0.5:
            order = unanswered.popleft()
        elif answered and random.random() < 0.1:
            order = random.choice(answered)
        else:
            order, is_new = next(fresh), True
        timeout = random.choice(TIMEOUTS)
        began, stalled = loop.time(), stalls.total
        outcome = await ask(bundle, journal, order, timeout=timeout)
        late = loop.time() - began - (stalls.total - stalled) - timeout
        if late > 1:
            journal.write(Line(order.id, wrong=f"{outcome} came {late:.1f} s after the deadline of {timeout:g} s"))
        if outcome == "done" and len(answered) < 10_000:
            answered.append(order)
        elif outcome == "nothing" and is_new and random.random() < 0.5:
            journal.write(Line(order.id, given_up="it was said that nothing happened"))
        elif outcome in ("nothing", "unknown"):
            unanswered.append(order)
        await asyncio.sleep(random.expovariate(1 / 0.03))


async def tail(site: Site) -> None:
    """Follow the stream from where the last process has come to, and write down each event."""
    site.tail.touch()
    whole = site.tail.read_bytes().rpartition(b"\n")[0]
    lines = whole.splitlines()
    after = int(lines[-1].split()[0]) if lines else 0
    with site.tail.open("r+b") as cut:
        cut.truncate(len(whole) + 1 if lines else 0)
    async with AsyncExitStack() as stack:
        connection = NatsConnection(site.gateways, cluster=CLUSTER, user="tail", instance=new_id(), start_timeout=60)
        await stack.enter_async_context(connection)
        store = await stack.enter_async_context(RemoteStateStore(connection))
        reading = asyncio.create_task(_follow(store, after, os.open(site.tail, os.O_WRONLY | os.O_APPEND)))
        stopping = asyncio.create_task(until_stopped())
        await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        reading.cancel()
        await asyncio.wait({reading})
        if not reading.cancelled():
            reading.result()


async def _follow(store: StateStore, after: int, file: int) -> None:
    while True:
        try:
            page = await store.fetch(after, limit=100)
            for event in page.events:
                os.write(file, f"{event.position} {event.event_id}\n".encode())
            after = page.scanned_to
            if after >= page.head:
                await store.wait(after, 1.0)
        except EventoError as error:
            sys.stderr.write(f"the tailing reader tries again after {error!r}\n")
            await asyncio.sleep(0.05)


MODES = {mode.__name__: mode for mode in (serve, handle, watch, call, tail)}

if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    signal.alarm(int(os.environ.get("CLUSTER_WORKER_SECONDS", "120")))  # elsewhere
    asyncio.run(MODES[sys.argv[1]](msgspec.json.decode(sys.argv[2], type=Site), *sys.argv[3:]))
