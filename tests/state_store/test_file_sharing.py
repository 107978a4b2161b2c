"""A SQLite store's file while other programs open and close it: nobody's close may take the log from a writer."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from evento.messages import new_id
from evento.state_store import Append, Appended, NewEvent
from evento.state_store.sqlite import SqliteStateStore

LOOK = (
    "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); print(c.execute('SELECT count(*) FROM events').fetchone())"
)


def append() -> Append:
    message_id = new_id()
    return Append(
        NewEvent("default", None, "Noted", 1, "service", b"{}", b"{}", new_id(), message_id, message_id, None, 1)
    )


async def python(program: str, *argv: str) -> str:
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program, *argv], capture_output=True, text=True, timeout=50, check=True
    )
    return done.stdout


async def test_another_programs_look_at_the_file_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    async with SqliteStateStore(path) as store, SqliteStateStore(path, read_only=True):
        for number in range(1, 4):
            assert isinstance(await store.append(append()), Appended)
            assert await python(LOOK, str(path)) == f"({number},)\n"
        async with SqliteStateStore(path, read_only=True) as late_reader:
            assert await late_reader.head() == 3
        assert await python(LOOK, str(path)) == "(3,)\n"
        # Without its log a crash from here on would lose what was acknowledged.
        assert (tmp_path / "shop.db-wal").exists()


async def test_a_reader_goes_on_while_writers_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    async with SqliteStateStore(path) as store:
        await store.append(append())
    write = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('UPDATE head SET position = position + 1')"
    )
    async with SqliteStateStore(path, read_only=True) as reader:
        assert await reader.head() == 1
        for head in range(2, 5):
            await python(write, str(path))
            assert await reader.wait(head - 1, 10) == head
