"""kill -9 of a process that appends: what it was told is there, once and in its place."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from random import Random

import pytest

from evento.state_store import AlreadyStored
from evento.state_store.sqlite import SqliteStateStore

WORKER = Path(__file__).parents[1] / "support" / "appending_worker.py"
ROUNDS = 4

pytestmark = pytest.mark.chaos


async def acknowledged_until_killed(path: Path, lines: int) -> dict[str, int]:
    """Run the worker, kill it after so many acknowledgements, and return the position of each command id."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(WORKER), str(path), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    told: list[bytes] = []
    try:
        assert await process.stdout.readline() == b"open\n", (await process.stderr.read()).decode()
        told += [await process.stdout.readline() for _ in range(lines)]
        process.kill()
        told += (await process.stdout.read()).splitlines(keepends=True)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
    # The kill may cut the last line short.
    found = [line.split() for line in told if line.endswith(b"\n")]
    return {command_id.decode(): int(position) for position, command_id in found}


async def test_everything_acknowledged_is_there_exactly_once(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    random = Random(7)
    acknowledged: dict[str, int] = {}
    for _ in range(ROUNDS):
        acknowledged |= await acknowledged_until_killed(path, random.randrange(1, 1500))
        async with SqliteStateStore(path) as store:
            report = await store.verify()
            assert report.ok, report.problems
            assert report.events == await store.head()
            for command_id, position in acknowledged.items():
                found = await store.lookup(command_id)
                assert isinstance(found, AlreadyStored)
                assert found.record is not None
                assert found.record.position == position
