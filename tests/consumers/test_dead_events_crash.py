"""kill -9 in the middle of a retry: nothing is lost, and exactly-once handlers write once."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from streams import RowProjector, Seen, ThingAddedEvent, ThingProjector, add, group_of, make_rows, rows

from evento import EventMessage
from evento.consumers import ConsumerId, SqlConsumerStateStore
from evento.state_store.sqlite import SqliteStateStore

VICTIM = """
import asyncio, os, signal, sys
sys.path.insert(0, {support!r})
from streams import RowProjector, ThingProjector, group_of
from evento.consumers import SqlConsumerStateStore
from evento.state_store.sqlite import SqliteStateStore

async def handle(message):
    with open({log!r}, "a") as log:
        log.write(f"{{message.position}}\\n")
    if message.position == {at}:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with SqliteStateStore({events!r}) as events, SqlConsumerStateStore({state!r}) as state:
        async with group_of(events, state, {projector}(handle), take_over=True) as group:
            await group.administration.retry("{projector}", all=True)
            await group.caught_up(30)

asyncio.run(main())
"""


@pytest.mark.parametrize("projector", [ThingProjector, RowProjector])
@pytest.mark.parametrize("at", [1, 5])
async def test_killed_in_the_middle_of_a_retry_nothing_is_lost(tmp_path: Path, projector: type, at: int) -> None:
    path, url, log = tmp_path / "events.db", f"sqlite+aiosqlite:///{tmp_path / 'state.db'}", tmp_path / "log"
    consumer = ConsumerId("test_bundle", projector.__name__, 1, "*")

    async def fail(message: EventMessage[ThingAddedEvent]) -> None:
        if message.position == 1:
            raise ValueError("no")

    async with SqliteStateStore(path) as events, SqlConsumerStateStore(url) as state:
        await make_rows(state)
        await add(events, *(ThingAddedEvent(name) for name in "ABAAAAB"))
        async with group_of(events, state, projector(fail), take_over=True) as group:
            await group.caught_up(10)
    program = VICTIM.format(
        support=str(Path(__file__).parent.parent / "support"),
        log=str(log),
        at=at,
        events=str(path),
        state=url,
        projector=projector.__name__,
    )
    victim = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], timeout=50)
    assert victim.returncode == -signal.SIGKILL
    retried = [1, 3, 4, 5, 6]
    assert [int(line) for line in log.read_text().splitlines()] == retried[: retried.index(at) + 1]

    seen = Seen()
    async with SqliteStateStore(path) as events, SqlConsumerStateStore(url) as state:
        left = [event.position for event in await state.dead_events(consumer)]
        assert left == retried[retried.index(at) :]
        async with group_of(events, state, projector(seen), take_over=True) as group:
            await group.caught_up(20)
        assert seen.positions == left
        assert await state.dead_events(consumer) == []
        if projector is RowProjector:
            assert await rows(state) == [1, 2, 3, 4, 5, 6, 7]
