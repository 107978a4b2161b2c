"""A cluster of processes that are killed, paused and cut off, and what must be true of it afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from types import MappingProxyType

import asyncpg
import msgspec
from cluster_site import CLUSTER, Site
from journal import History, Journal, ask
from killing import all_events, check_events
from nats_server import NatsServer, joined
from shop import OrderInvoker
from tcp_proxy import TcpProxy, tcp_proxy

from evento import EventoBundle
from evento.messages import EventRecord
from evento.state_store import StateStore
from evento.testing.postgres import PostgresServer

__all__ = ["STORM", "ChaosCluster", "Member", "chaos_cluster", "check"]

WORKER = Path(__file__).with_name("cluster_worker.py")
STORM = {
    "orders-1": ("handle", "handlers"),
    "orders-2": ("handle", "handlers"),
    "tail": ("tail", "others"),
    "callers": ("call", "others"),
}
"""Two replicas of a bundle, a tailing reader and callers."""
COMPLAINTS = ("was never retrieved", "was never awaited", "Unhandled exception", "outside of what it answers for")


class Member:
    """A process of the cluster, which is started again after its end.

    :param words: the worker's arguments.
    :param clock_off: seconds by which its wall clock is wrong.
    """

    def __init__(self, name: str, words: Sequence[str], log: Path, *, clock_off: int = 0) -> None:
        self.name = name
        self._environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        if clock_off:
            self._environment |= {"PYTHONPATH": str(WORKER.parent / "clock_off"), "CLOCK_OFF_SECONDS": str(clock_off)}
        self._words = words
        self._log = log
        self._is_ready = False
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process, without waiting for what it does."""
        self._is_ready = False
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(WORKER),
                *self._words,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self._environment,
            )

    async def ready(self, timeout: float = 40.0) -> None:
        """Wait until the process says that all is up; start it again when it could not reach its database."""
        if self._is_ready:
            return None
        await self._revive()
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise AssertionError(f"{self.name} does not come up: {self.complaint()}") from None
        if not line:
            await self._process.wait()
            return await self.ready(timeout)  # once more, or it has ended for another reason
        self._is_ready = True
        return None

    async def _revive(self) -> None:
        """Do what a supervisor does: start a server again that has ended because its database was away."""
        assert self._process is not None
        if self._process.returncode is None:
            return
        last = "" if self._is_ready else "".join(self.complaint().splitlines()[-3:])
        assert "StoreUnavailable: " in last, f"{self.name} has ended: {self.complaint()}"
        await self.start()

    def complaint(self) -> str:
        """Return the last that it wrote."""
        return self._log.read_text()[-3000:]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; fail when the process has ended by itself."""
        assert self._process is not None
        assert self._process.returncode is None, f"{self.name} has ended: {self.complaint()}"
        self._process.send_signal(number)

    def pause(self) -> None:
        """Stop the process where it is."""
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let a stopped process go on."""
        self.signal(signal.SIGCONT)

    async def kill(self) -> None:
        """Kill it, with no chance to do anything about it."""
        await self._revive()
        self.signal(signal.SIGKILL)
        await self._ended(10)

    async def stop(self, timeout: float = 35.0) -> None:
        """Let it end by itself."""
        self.signal(signal.SIGTERM)
        code = await self._ended(timeout)
        assert code == 0, f"{self.name} ended with {code}: {self.complaint()}"

    async def end(self) -> None:
        """Kill it if it runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._ended(10)

    async def _ended(self, timeout: float) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(timeout):
            await self._process.stdout.read()  # closes the pipe
            return await self._process.wait()


class ChaosCluster:
    """NATS nodes, servers (two on PostgreSQL), and the members of the roles, each in a process of its own.

    Servers, handlers and the others reach each node by a proxy of their own, which can be cut.

    :param proxies: by the side that they are for, one for each node.
    """

    def __init__(
        self,
        site: Site,
        nodes: Sequence[NatsServer],
        proxies: Mapping[str, Sequence[TcpProxy]],
        postgres: PostgresServer | None,
        roles: Mapping[str, tuple[str, str]],
        clocks: Mapping[str, int],
    ) -> None:
        self.site = site
        self.members: dict[str, Member] = {}
        self._nodes = nodes
        self._proxies = proxies
        self._postgres = postgres
        self._clocks = clocks
        for name in ("server-1", "server-2") if site.database else ("server-1",):
            self._add(name, "serve", "servers", [name])
        for name, (mode, proxy) in roles.items():
            self._add(name, mode, proxy)

    def _add(self, name: str, mode: str, proxy: str, more: Sequence[str] = ()) -> Member:
        site = msgspec.structs.replace(self.site, gateway=_urls(self._proxies[proxy]))
        words = [mode, msgspec.json.encode(site).decode(), *more]
        log = Path(self.site.folder) / f"{name}.log"
        member = Member(name, words, log, clock_off=self._clocks.get(name, 0))
        self.members[name] = member
        return member

    async def start(self) -> None:
        """Start all, and wait until all are up."""
        for member in self.members.values():
            await member.start()
        for member in self.members.values():
            await member.ready()

    async def end(self) -> None:
        """Kill what is left."""
        for member in self.members.values():
            await member.end()

    # What can happen ---------------------------------------------------------------------------------------------

    @property
    def disturbances(self) -> dict[str, Callable[[Random], Awaitable[None]]]:
        """What can happen to this cluster, by name."""
        found: dict[str, Callable[[Random], Awaitable[None]]] = {
            "kill a handler": lambda random: self._kill(random.choice(["orders-1", "orders-2"]), random),
            "kill a server": lambda random: self._kill(random.choice(self._servers), random),
            "kill the callers": lambda random: self._kill("callers", random),
            "kill the tailing reader": lambda random: self._kill("tail", random),
            "kill the gateway": self._kill_gateway,
            "pause a handler": lambda random: self._pause(random.choice(["orders-1", "orders-2"]), random),
            "pause a server": lambda random: self._pause(random.choice(self._servers), random),
            "pause the gateway": self._pause_gateway,
            "cut connections": self._cut,
        }
        if self._postgres is not None:
            found["terminate a backend"] = lambda random: self._end_backend(random, kill=False)
            found["kill a backend"] = lambda random: self._end_backend(random, kill=True)
        return found

    @property
    def _servers(self) -> list[str]:
        return [name for name in self.members if name.startswith("server")]

    async def _kill(self, name: str, random: Random) -> None:
        await self.members[name].kill()
        await asyncio.sleep(random.uniform(0, 0.5))
        await self.members[name].start()

    async def _pause(self, name: str, random: Random) -> None:
        """Longer than the leases."""
        await self.members[name].ready()
        self.members[name].pause()
        await asyncio.sleep(self.site.lease * random.uniform(1.1, 1.8))
        self.members[name].go_on()

    async def _kill_gateway(self, random: Random) -> None:
        node = random.choice(self._nodes)
        await node.kill()
        await asyncio.sleep(random.uniform(0, 0.5))
        await node.start()

    async def _pause_gateway(self, random: Random) -> None:
        node = random.choice(self._nodes)
        node.pause()
        await asyncio.sleep(random.uniform(0.1, 1.0))
        node.go_on()

    async def _cut(self, random: Random) -> None:
        proxy = random.choice(self._proxies[random.choice(sorted(self._proxies))])
        proxy.cut(refuse=True)
        await asyncio.sleep(random.uniform(0, 0.7))
        proxy.refusing = False

    async def _end_backend(self, random: Random, *, kill: bool) -> None:
        """End a session of the servers; a killed one makes PostgreSQL end all sessions and recover."""
        assert self._postgres is not None
        while True:
            try:
                connection = await asyncpg.connect(self._postgres.url)
                break
            except asyncpg.CannotConnectNowError:
                await asyncio.sleep(0.05)
        try:
            rows = await connection.fetch(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() "
                "AND datname = $1 ORDER BY pid",
                self.site.database.rpartition("/")[2],
            )
            if rows and kill:
                os.kill(random.choice(rows)["pid"], signal.SIGKILL)
            elif rows:
                await connection.fetch("SELECT pg_terminate_backend($1)", random.choice(rows)["pid"])
        finally:
            connection.terminate()

    # The end -----------------------------------------------------------------------------------------------------

    async def settle(self) -> History:
        """Let all come to rest: bring every command to its answer, and end all processes gracefully."""
        for proxies in self._proxies.values():
            for proxy in proxies:
                proxy.refusing = False
        for member in self.members.values():
            await member.ready()
        await self.members["callers"].stop()
        journal = Journal(self.site.journal)
        await self._answer_all(journal)
        history = journal.read()
        journal.close()
        await self._tail_reaches(max(position for position, _ in history.done.values()))
        for name in ("tail", "orders-1", "orders-2", *self._servers):
            await self.members[name].stop()
        return history

    async def _answer_all(self, journal: Journal) -> None:
        async with EventoBundle(
            "settling", components=[OrderInvoker], server=self.site.gateway, cluster=CLUSTER, start_timeout=20
        ) as bundle:
            history = journal.read()
            answered = [history.sent[key] for key in history.done][-200:]
            for order in [*history.open, *answered]:
                async with asyncio.timeout(40):
                    while await ask(bundle, journal, order, timeout=10) in ("nothing", "unknown"):
                        await asyncio.sleep(0.1)

    async def _tail_reaches(self, position: int) -> None:
        async with asyncio.timeout(20):
            while self._seen()[-1:] < [str(position)] or int(self._seen()[-1]) < position:
                await asyncio.sleep(0.05)

    def _seen(self) -> list[str]:
        return [line.split()[0] for line in self.site.tail.read_text().splitlines()]


async def check(site: Site, store: StateStore, history: History) -> list[EventRecord]:
    """Check what is left after all processes have ended."""
    assert history.wrong == []
    assert history.open == []
    async with store:
        report = await store.verify()
        assert report.ok, report.problems
        events = await all_events(store)
        assert len(events) == await store.head()
    check_events(events, history)
    assert site.tail.read_text().splitlines() == [f"{event.position} {event.event_id}" for event in events]
    for log in Path(site.folder).glob("*.log"):
        complaints = [line for line in log.read_text().splitlines() if any(word in line for word in COMPLAINTS)]
        assert complaints == [], log.read_text()[-5000:]
    return events


@asynccontextmanager
async def chaos_cluster(
    folder: Path,
    *,
    nodes: int = 1,
    postgres: PostgresServer | None = None,
    database: str = "",
    roles: Mapping[str, tuple[str, str]] = STORM,
    clocks: Mapping[str, int] = MappingProxyType({}),
    prepare: Callable[[Site], Awaitable[None]] | None = None,
) -> AsyncIterator[ChaosCluster]:
    """Run a cluster; at the end of the block none of its processes is left.

    :param nodes: how many NATS servers there are, joined by routes.
    :param database: is made in ``postgres``.
    :param roles: mode and proxy of each member.
    :param clocks: by how many seconds the wall clocks of members are wrong.
    :param prepare: is called before anything runs.
    """
    async with AsyncExitStack() as stack:
        gateway = [await stack.enter_async_context(node) for node in joined(folder, nodes)]
        proxies = {
            side: [await stack.enter_async_context(tcp_proxy(node.port)) for node in gateway]
            for side in ("servers", "handlers", "others")
        }
        site = Site(str(folder), _urls(gateway), "" if postgres is None else await _new_database(postgres, database))
        if prepare is not None:
            await prepare(site)
        cluster = ChaosCluster(site, gateway, proxies, postgres, roles, clocks)
        stack.push_async_callback(cluster.end)
        await cluster.start()
        yield cluster


def _urls(ways: Sequence[NatsServer | TcpProxy]) -> str:
    return ",".join(way.url for way in ways)


async def _new_database(postgres: PostgresServer, name: str) -> str:
    connection = await asyncpg.connect(postgres.url)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return f"{postgres.url.rpartition('/')[0]}/{name}"
