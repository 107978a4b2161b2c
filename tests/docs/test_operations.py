"""The page of operations: a backup from another process is whole, and what it says about restoring holds."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shop import OrderAggregate, OrderPlaceCommand
from tutorial_folder import environment

from evento import EventoBundle
from evento.state_store.sqlite import SqliteStateStore

BACKUPS = {
    ".backup": "with sqlite3.connect(sys.argv[2]) as copy: sqlite3.connect(sys.argv[1]).backup(copy)",
    "VACUUM INTO": "sqlite3.connect(sys.argv[1]).execute('VACUUM INTO ?', [sys.argv[2]])",
}


def bundle(folder: Path) -> EventoBundle:
    return EventoBundle("shop", components=[OrderAggregate], server=f"embedded:{folder / 'shop.db'}")


async def place(system: EventoBundle, numbers: range) -> None:
    await asyncio.gather(*(system.commands.send(OrderPlaceCommand(f"ORD_{number}", "ann")) for number in numbers))


@pytest.mark.parametrize("way", BACKUPS)
async def test_a_backup_of_a_running_store_is_whole(tmp_path: Path, way: str) -> None:
    copy = tmp_path / "backup/shop.db"
    copy.parent.mkdir()
    async with bundle(tmp_path) as system:
        await place(system, range(100))
        writing = asyncio.create_task(place(system, range(100, 400)))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", f"import sqlite3, sys\n{BACKUPS[way]}", str(tmp_path / "shop.db"), str(copy)),
        )
        assert await process.wait() == 0
        await writing
        await place(system, range(400, 500))

    verified = subprocess.run(
        [sys.executable, "-m", "evento", "store", "verify", "--store", f"sqlite:{copy}"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    async with SqliteStateStore(copy, read_only=True) as store:
        assert 100 <= await store.head() <= 400


async def test_a_backup_goes_on_in_the_place_of_the_store(tmp_path: Path) -> None:
    async with bundle(tmp_path) as system:
        await place(system, range(3))
    shutil.copy(tmp_path / "shop.db", tmp_path / "backup.db")  # all is stopped: a copy is a backup
    async with bundle(tmp_path) as system:
        await place(system, range(3, 6))

    for suffix in ("-wal", "-shm"):
        (tmp_path / f"shop.db{suffix}").unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup.db", tmp_path / "shop.db")

    async with bundle(tmp_path) as system:
        event = await system.commands.send_message(OrderPlaceCommand("ORD_3", "bob"))
        assert event.position == 4
