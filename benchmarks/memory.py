"""The memory of a server while gigabytes of events are fetched through it: ``python benchmarks/memory.py [GIGABYTES]``.

Several readers fetch the same history again and again, as projectors that replay do; the memory of server and
nats-server is printed ten times on the way. Exits with 1 when the server grows in the second half.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

import distributed
import processes
from commands import run_on_fast_loop
from evento.gateway.nats import NatsConnection
from evento.messages import new_id
from evento.state_store.remote import RemoteStateStore

READERS = 4
STEPS = 10
MAY_GROW = 8.0
"""MiB between the middle and the end that are no leak."""


def main() -> int:
    """Fetch, look, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gigabytes", nargs="?", type=float, default=5.0)
    parser.add_argument("--sqlite", action="store_true", help="instead of PostgreSQL")
    parser.add_argument("--directory", type=Path, default=Path.cwd())
    arguments = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix=".benchmark-", dir=arguments.directory))
        )
        others = {}
        url = str(directory / "events.db")
        if not arguments.sqlite:
            postgres = stack.enter_context(processes.a_postgres(directory))
            url = postgres.url
            others["database"] = processes.Process(postgres.pid, children=True)
        cluster = stack.enter_context(distributed.a_cluster("memory", url, directory, others))
        return run_on_fast_loop(_fetch(cluster, int(arguments.gigabytes * 1e9)))


async def _fetch(cluster: distributed.Cluster, total: int) -> int:
    begin, fetched = perf_counter(), 0
    print(f"{'fetched':>9} {'server':>8} {'nats':>8}")

    def look() -> None:
        cluster.look()
        nats = cluster.others["nats-server"].resident_mib()
        print(f"{fetched / 1e9:6.2f} GB {cluster.memory[-1]:4.0f} MiB {nats:4.0f} MiB", flush=True)

    async def read(store: RemoteStateStore) -> None:
        nonlocal fetched
        after = 0
        while fetched < total:
            page = await store.fetch(after)
            fetched += sum(len(event.payload) for event in page.events)
            after = page.scanned_to if page.scanned_to < page.head else 0
            if fetched >= len(cluster.memory) * total // STEPS:
                look()

    connection = NatsConnection([cluster.nats], cluster=distributed.NAME, user="reader", instance=new_id())
    async with connection, RemoteStateStore(connection) as store:
        await asyncio.gather(*(read(store) for _ in range(READERS)))
    took = perf_counter() - begin
    grown = cluster.memory[-1] - cluster.memory[len(cluster.memory) // 2]
    print(f"{fetched / 1e9:.2f} GB of payloads in {took:.0f} s; {grown:+.1f} MiB in the second half")
    return 0 if grown <= MAY_GROW else 1


if __name__ == "__main__":
    sys.exit(main())
