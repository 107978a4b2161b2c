# ruff: noqa: T201 - it talks to its parent
"""A process that appends to a store until it is killed, and says what was acknowledged. See tests/state_store."""

from __future__ import annotations

import asyncio
import sys

from evento.messages import new_id, now_micros
from evento.state_store import Append, Appended, NewEvent
from evento.state_store.sqlite import SqliteStateStore

CALLERS = 16


def event(aggregate_id: str) -> NewEvent:
    """Return an event of a command of its own."""
    command_id = new_id()
    return NewEvent(
        "default",
        aggregate_id,
        "Noted",
        1,
        "domain",
        b"{}",
        b"{}",
        new_id(),
        command_id,
        command_id,
        None,
        now_micros(),
    )


async def main(path: str) -> None:
    """Append for ever: each caller to an aggregate of its own, now and then to one that all share."""
    async with SqliteStateStore(path) as store:
        print("open", flush=True)

        async def call(number: int) -> None:
            own = f"own-{number}"
            version = (await store.story(own)).version
            while True:
                appends = [Append(event(own), version, own), Append(event("shared"), boundary="shared")]
                for outcome in await asyncio.gather(*map(store.append, appends)):
                    assert isinstance(outcome, Appended)
                    print(outcome.record.position, outcome.record.command_id, flush=True)
                version += 1

        await asyncio.gather(*(call(number) for number in range(CALLERS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
