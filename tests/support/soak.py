"""All seven roles under a steady load, for ten minutes or ``EVENTO_SOAK_SECONDS``; memory must stay flat.

The resident memory (RSS) is sampled once a second. The first third is the warm-up, in which caches fill (the one of
states is small here); flat means
that the median of the last third is at most a tenth and 8 MiB above the median of the second third. At the end all
consumers must catch up, with no dead event. Exit code 1: not flat.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import monotonic

from seven_roles import CustomerInvoker, running

from evento import NotFound

SECONDS = float(os.environ.get("EVENTO_SOAK_SECONDS", "600"))
ORDERS_A_SECOND = 20
MIB = 1024 * 1024


def rss() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def flat(samples: list[int]) -> bool:
    """Tell whether memory has stopped growing after the first third, and print what it is judged by."""
    third = len(samples) // 3
    middle, last = median(samples[third : 2 * third]), median(samples[2 * third :])
    allowed = middle * 1.1 + 8 * MIB
    print(  # noqa: T201
        f"RSS: {samples[0] / MIB:.1f} MiB at first, median {middle / MIB:.1f} in the second third, "
        f"{last / MIB:.1f} in the last (allowed {allowed / MIB:.1f}), at most {max(samples) / MIB:.1f}"
    )
    return last <= allowed


async def soak(directory: Path) -> bool:
    """Place orders at a steady rate, read some of them, and sample."""
    samples: list[int] = []
    number = 0
    async with running(directory, state_cache_size=500) as bundle:
        invoker = bundle.invoker(CustomerInvoker)
        begin = monotonic()
        while (now := monotonic() - begin) < SECONDS:
            if now >= len(samples):
                samples.append(rss())
                if len(samples) % 30 == 1:
                    print(f"{now:5.0f} s  {number:7,} orders  {samples[-1] / MIB:6.1f} MiB", flush=True)  # noqa: T201
            await invoker.place(number)
            if number % 10 == 9:
                try:
                    await invoker.find(number - 9)
                except NotFound:  # the read model may be behind
                    await bundle.consumers_caught_up(60)
            number += 1
            await asyncio.sleep(max(0.0, number / ORDERS_A_SECOND - (monotonic() - begin)))
        await bundle.consumers_caught_up(120)
        statuses = await bundle.consumers.list()
        assert not any(status.dead or status.waiting for status in statuses), statuses
        print(f"{number:,} orders, {statuses[0].position:,} events")  # noqa: T201
    return flat(samples)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(0 if asyncio.run(soak(Path(folder))) else 1)
