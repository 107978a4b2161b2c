"""kill -9 between a handler and its checkpoint: the event comes again, and exactly-once handlers write once."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from streams import RowProjector, Seen, ThingProjector, add, group_of, make_rows, rows, things

from evento.consumers import SqlConsumerStateStore
from evento.state_store.sqlite import SqliteStateStore

VICTIM = """
import asyncio, os, signal, sys
from datetime import timedelta
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
        interval = timedelta(seconds={interval})
        projector = {projector}(handle)
        async with group_of(events, state, projector, take_over=True, checkpoint_interval=interval) as group:
            await group.caught_up(30)

asyncio.run(main())
"""


@pytest.mark.parametrize("projector", [ThingProjector, RowProjector])
@pytest.mark.parametrize(("at", "interval"), [(7, 3600), (40, 0)])
async def test_a_killed_consumer_goes_on_where_its_checkpoint_is(
    tmp_path: Path, projector: type, at: int, interval: int
) -> None:
    path, url, log = tmp_path / "events.db", f"sqlite+aiosqlite:///{tmp_path / 'state.db'}", tmp_path / "log"
    async with SqliteStateStore(path) as events, SqlConsumerStateStore(url) as state:
        await add(events, *things(50))
        await make_rows(state)
    program = VICTIM.format(
        support=str(Path(__file__).parent.parent / "support"),
        log=str(log),
        at=at,
        events=str(path),
        state=url,
        interval=interval,
        projector=projector.__name__,
    )
    victim = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], timeout=50)
    assert victim.returncode == -signal.SIGKILL
    before = [int(line) for line in log.read_text().splitlines()]
    assert before == list(range(1, at + 1))

    seen = Seen()
    async with SqliteStateStore(path) as events, SqlConsumerStateStore(url) as state:
        async with group_of(events, state, projector(seen), take_over=True) as group:
            await group.caught_up(20)
        # At least once, in order, from the checkpoint on: with one for each event only the killed one comes again.
        assert seen.positions == list(range(seen.positions[0], 51))
        assert seen.positions[0] == (1 if interval else at)
        if projector is RowProjector:
            assert await rows(state) == list(range(1, 51))
