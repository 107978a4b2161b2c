"""Files that cannot be used: a clear error that says what to do, nothing lost, and a way on once that is mended."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from depot import event_store, read_models, running
from full_disk import Told
from killing import all_events, expected_read_models, worker
from shop import ItemAddCommand, OrderFindQuery, OrderPlaceCommand, Orders
from work import inside

from evento import EventoBundle, SchemaTooNew, StoreInUse, StoreMismatch, StoreUnavailable
from evento.state_store.sqlite import SqliteStateStore

MakeBundle = Callable[..., EventoBundle]
FULL_DISK = Path(__file__).parents[1] / "support" / "full_disk.py"
NOBODY = 65534


@pytest.fixture
async def filled(make_bundle: MakeBundle, tmp_path: Path) -> Path:
    """A store with an order of two events, closed."""
    async with make_bundle() as bundle:
        await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
        await bundle.commands.send(ItemAddCommand("ORD_1", "tea"))
        await bundle.consumers_caught_up()
    return tmp_path / "shop.db"


async def goes_on(make_bundle: MakeBundle) -> None:
    """Fail unless the bundle starts and continues the order."""
    async with make_bundle() as bundle:
        assert (await bundle.commands.send_message(ItemAddCommand("ORD_1", "tea"))).version == 3
        assert (await inside(bundle).store.verify()).ok


# A full disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["limit", "tmpfs"])
async def test_a_full_disk_refuses_definitely_and_goes_on_when_there_is_space(tmp_path: Path, way: str) -> None:
    directory, kept = tmp_path / "depot", tmp_path / "kept"
    directory.mkdir()
    command: Sequence[object] = [sys.executable, FULL_DISK, directory, way, kept]
    if way == "tmpfs":
        await _can_mount(directory)
        mount = 'mount -t tmpfs -o size=16m none "$2" && exec "$0" "$@"'
        command = ["unshare", "--mount", "sh", "-c", mount, *command]
    told = msgspec.json.decode(await _output(command), type=Told)
    assert len(told.refused) > 50
    assert told.doubtful == []
    assert all("full" in message and "shop.db" in message for message in told.messages)
    async with SqliteStateStore(event_store(kept)) as store:
        events = await all_events(store)
        assert (await store.verify()).ok
    assert {event.command_id: event.position for event in events[5:]} == told.positions
    assert len(told.positions) == len(events) - 5 >= len(told.refused)
    assert read_models(kept, 1) == expected_read_models(events)


async def _can_mount(directory: Path) -> None:
    try:
        await _output(["unshare", "--mount", "mount", "-t", "tmpfs", "none", directory])
    except (OSError, AssertionError) as error:
        pytest.skip(f"a file system of its own cannot be mounted here: {error}")


async def _output(command: Sequence[object]) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), 50)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    return output


# Permissions ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that others than its owner can reach, too."""
    path = Path(tempfile.mkdtemp(prefix="evento-test-"))
    try:
        path.chmod(0o755)
        yield path
    finally:
        path.chmod(0o755)
        shutil.rmtree(path)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Let file permissions count for root, too."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("shop.db", 0o444, r"shop\.db.*cannot be written: check the permissions"),
        ("shop.db", 0o000, r"shop\.db: cannot be read: unable to open"),
        ("shop.db-lock", 0o444, r"lock file .*shop\.db-lock"),
        ("shop.db-consumers", 0o444, r"shop\.db-consumers.*readonly"),
        ("shop.db-consumers", 0o000, r"shop\.db-consumers.*unable to open"),
        ("", 0o555, r"shop\.db"),
    ],
)
async def test_what_may_not_be_written_is_named(
    make_bundle: MakeBundle, folder: Path, name: str, mode: int, message: str
) -> None:
    def make() -> EventoBundle:
        return make_bundle(server=f"embedded:{folder / 'shop.db'}")

    async with make() as bundle:
        await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
        await bundle.consumers_caught_up()
    if os.geteuid() == 0:
        for file in (folder, *folder.iterdir()):
            os.chown(file, NOBODY, NOBODY)
    (folder / name).chmod(mode)
    before = (folder / "shop.db").read_bytes() if os.geteuid() == 0 else b""
    with without_privileges(), pytest.raises(StoreUnavailable, match=message):
        await make().start()
    assert not before or before == (folder / "shop.db").read_bytes()
    (folder / name).chmod(0o755)
    async with make() as bundle:
        assert (await bundle.commands.send_message(ItemAddCommand("ORD_1", "tea"))).version == 2


async def test_a_file_in_the_place_of_the_folder_is_named(make_bundle: MakeBundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreUnavailable, match="file"):
        await make_bundle(server=f"embedded:{tmp_path / 'file' / 'shop.db'}").start()
    with pytest.raises(StoreUnavailable, match="is a folder"):
        await make_bundle(server=f"embedded:{tmp_path}").start()
    assert (tmp_path / "file").read_text() == "mine"


async def test_a_new_store_is_made_with_its_folder_and_told(
    make_bundle: MakeBundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "new" / "folder" / "shop.db"
    caplog.set_level(logging.INFO, "evento.bundle")
    for _ in range(2):
        async with make_bundle(server=f"embedded:{path}"):
            assert path.is_file()
    assert caplog.messages == [f"There is no event store at {path} yet: a new one is made"]


# Files of others -----------------------------------------------------------------------------------------------------


async def test_a_second_bundle_of_another_process_is_refused_and_told_who_has_the_file(tmp_path: Path) -> None:
    async with worker("hold", tmp_path) as other:
        await other.until("running")
        with pytest.raises(StoreInUse, match=rf"in use by process {other.pid}: stop it, or use another file") as caught:
            async with running(tmp_path, 1):
                pass
        assert caught.value.data["pid"] == other.pid
        await other.kill()
    async with running(tmp_path, 1) as bundle:
        await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))


@pytest.mark.parametrize(
    ("file", "statement"),
    [
        ("shop.db", "UPDATE meta SET schema_version = schema_version + {}"),
        ("shop.db-consumers", "UPDATE evento_consumer_schema SET version = version + {}"),
    ],
)
async def test_a_newer_schema_is_left_alone(filled: Path, make_bundle: MakeBundle, file: str, statement: str) -> None:
    _execute(filled.with_name(file), statement.format(7))
    with pytest.raises(SchemaTooNew, match=rf"{file}.*schema version \d+.*(upgrade|install)") as caught:
        await make_bundle().start()
    assert caught.value.data["found"] > 7
    _execute(filled.with_name(file), statement.format(-7))
    await goes_on(make_bundle)


async def test_an_event_store_that_was_restored_from_a_backup_is_not_read_on_from_beyond_its_head(
    filled: Path, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    shutil.copy(filled, backup)
    async with make_bundle() as bundle:
        await bundle.commands.send(OrderPlaceCommand("ORD_2", "bob"))
        await bundle.consumers_caught_up()
    newer = tmp_path / "newer"
    shutil.copy(filled, newer)
    shutil.copy(backup, filled)
    with pytest.raises(StoreMismatch, match=r"OrderProjector.*position 3.*ends at 2.*raise the component's version"):
        await make_bundle().start()
    shutil.copy(newer, filled)
    await goes_on(make_bundle)


async def test_an_older_event_store_is_read_anew_without_its_consumer_state(
    filled: Path, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    shutil.copy(filled, backup)
    async with make_bundle() as bundle:
        await bundle.commands.send(OrderPlaceCommand("ORD_2", "bob"))
        await bundle.consumers_caught_up()
    shutil.copy(backup, filled)
    for file in tmp_path.glob("shop.db-consumers*"):
        file.unlink()
    orders = Orders()
    async with make_bundle(orders=orders) as bundle:
        message = await bundle.commands.send_message(ItemAddCommand("ORD_1", "tea"))
        view = await bundle.queries.query(OrderFindQuery("ORD_1"), at_least=message.position)
    assert (message.position, view.total) == (3, 2)


# Damage --------------------------------------------------------------------------------------------------------------


def _text(path: Path) -> None:
    path.write_text("Dear diary, this is no database. " * 100)


def _short_text(path: Path) -> None:
    path.write_text("hello")


def _half(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 + 100)


def _noise(path: Path) -> None:
    """Overwrite everything but the first page."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))


def _other_application(path: Path) -> None:
    path.unlink()
    _execute(path, "CREATE TABLE notes (text TEXT)")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_text, "is not a SQLite database.*give another path"),
        (_short_text, "is not a SQLite database.*give another path"),
        (_other_application, "another application.*give another path"),
        (_half, "is damaged.*restore a backup"),
        (_noise, "is damaged.*restore a backup"),
    ],
)
async def test_a_damaged_event_store_is_named_and_a_backup_goes_on(
    filled: Path, make_bundle: MakeBundle, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    backup = tmp_path / "backup"
    shutil.copy(filled, backup)
    damage(filled)
    before = filled.read_bytes()
    with pytest.raises(StoreUnavailable, match=message):
        await _start_and_use(make_bundle)
    if damage not in (_half, _noise):
        assert filled.read_bytes() == before
    for file in (filled, *tmp_path.glob("shop.db-[ws]*")):
        file.unlink()
    shutil.copy(backup, filled)
    await goes_on(make_bundle)


async def _start_and_use(make_bundle: MakeBundle) -> None:
    async with make_bundle() as bundle:
        await bundle.commands.send(ItemAddCommand("ORD_1", "tea"))


@pytest.mark.parametrize("damage", [_text, _half, _noise])
async def test_a_damaged_consumer_state_is_named_and_the_events_are_safe(
    filled: Path, make_bundle: MakeBundle, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    consumers = filled.with_name("shop.db-consumers")
    damage(consumers)
    with pytest.raises(StoreUnavailable, match=r"shop\.db-consumers"):
        await _start_and_use(make_bundle)
    for file in tmp_path.glob("shop.db-consumers*"):
        file.unlink()
    await goes_on(make_bundle)


async def test_damage_in_the_middle_of_a_running_store_is_told_to_those_whom_it_concerns(
    make_bundle: MakeBundle, tmp_path: Path
) -> None:
    path = tmp_path / "shop.db"
    async with make_bundle() as bundle:
        for number in range(200):
            await bundle.commands.send(OrderPlaceCommand(f"ORD_{number}", "x" * 500))
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(os.urandom(3 * 4096))
    async with SqliteStateStore(path) as store:
        report = await store.verify()
        assert not report.ok
        outcomes = [await _story(store, f"ORD_{number}") for number in range(200)]
    assert any(isinstance(outcome, StoreUnavailable) and "damaged" in outcome.message for outcome in outcomes)
    assert all(outcome == 1 or isinstance(outcome, StoreUnavailable) for outcome in outcomes)


async def _story(store: SqliteStateStore, aggregate_id: str) -> Any:
    try:
        return (await store.story(aggregate_id)).version
    except Exception as error:
        return error


def _execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement)
