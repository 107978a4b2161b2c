"""One writer for each file: a lock that names its holder and ends with it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from evento.errors import StoreInUse, StoreUnavailable
from evento.state_store.sqlite import SqliteStateStore

HOLD = """
import asyncio, sys
from evento.state_store.sqlite import SqliteStateStore
async def main():
    async with SqliteStateStore(sys.argv[1]):
        print("open", flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_a_second_store_of_this_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with SqliteStateStore(path):
        with pytest.raises(StoreInUse, match="another bundle of this process") as caught:
            await SqliteStateStore(path).__aenter__()
        assert caught.value.data["pid"] == os.getpid()
    async with SqliteStateStore(path) as store:
        assert await store.head() == 0


async def test_another_name_of_the_file_is_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.db"
    (tmp_path / "link.db").symlink_to(path)
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    async with SqliteStateStore(path):
        for name in ("events.db", "link.db", "folder/../events.db"):
            with pytest.raises(StoreInUse):
                await SqliteStateStore(name).__aenter__()


async def test_another_process_is_named_and_its_lock_dies_with_it(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD, str(path), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"open\n"
        with pytest.raises(StoreInUse, match=f"in use by process {holder.pid}:") as caught:
            await SqliteStateStore(path).__aenter__()
        assert caught.value.data["pid"] == holder.pid
        assert caught.value.definite
        async with SqliteStateStore(path, read_only=True) as reader:
            assert await reader.head() == 0
    finally:
        holder.send_signal(signal.SIGKILL)
        await holder.communicate()
    async with SqliteStateStore(path) as store:
        assert await store.head() == 0


async def test_without_the_lock_nobody_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with SqliteStateStore(path), SqliteStateStore(path, lock=False) as other:
        assert await other.head() == 0


async def test_an_opening_that_fails_gives_the_lock_back(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    path.write_bytes(b"no database at all " * 100)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="not a SQLite database"):
            await SqliteStateStore(path).__aenter__()
    path.unlink()
    async with SqliteStateStore(path) as store:
        assert await store.head() == 0


async def test_a_cancelled_opening_gives_the_lock_back(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    for _ in range(5):
        opening = asyncio.ensure_future(SqliteStateStore(path).__aenter__())
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
    async with SqliteStateStore(path) as store:
        assert await store.head() == 0
