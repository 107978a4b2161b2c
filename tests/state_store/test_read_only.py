"""A store that is read beside its writer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from appending_worker import event

from evento.errors import ErrorData, StoreUnavailable
from evento.state_store import Append, EventFilter, Lease, Snapshot, StateStore
from evento.state_store.sqlite import SqliteStateStore

WRITES: dict[str, Callable[[StateStore], Awaitable[object]]] = {
    "append": lambda store: store.append(Append(event("A"))),
    "snapshot": lambda store: store.snapshot(Snapshot("A", 1, "f", b"{}")),
    "reject": lambda store: store.reject("c1", ErrorData("CommandRejected", "CommandRejected", "no")),
    "lock": lambda store: store.lock("L", owner="a", ttl=60),
    "renew": lambda store: store.renew(Lease("L", 1), ttl=60),
    "unlock": lambda store: store.unlock(Lease("L", 1)),
    "purge": lambda store: store.purge(deleted_before=10),
}


async def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with pytest.raises(StoreUnavailable, match=f"no event store at {path}"):
        await SqliteStateStore(path, read_only=True).__aenter__()
    assert list(tmp_path.iterdir()) == []


async def test_every_read_works_beside_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with SqliteStateStore(path) as writer, SqliteStateStore(path, read_only=True) as reader:
        assert (reader.store_id, reader.epoch) == (writer.store_id, writer.epoch)
        for number in range(1, 6):
            outcome = await writer.append(Append(event("A")))
            assert await reader.head() == number
            assert (await reader.fetch(number - 1)).events == (await writer.fetch(number - 1)).events
            assert outcome is not None
        assert await reader.story("A") == await writer.story("A")
        assert await reader.search(EventFilter(aggregate_id="A")) == await writer.search(EventFilter(aggregate_id="A"))
        assert await reader.event(2) == await writer.event(2)
        assert (await reader.info()).events == 5
        assert (await reader.verify()).ok
        assert (await reader.purge(deleted_before=10, dry_run=True)).events == 0


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
async def test_every_write_is_refused(tmp_path: Path, write: Callable[[StateStore], Awaitable[object]]) -> None:
    path = tmp_path / "events.db"
    async with SqliteStateStore(path) as store:
        await store.append(Append(event("A")))
    before = path.read_bytes()
    async with SqliteStateStore(path, read_only=True) as reader:
        with pytest.raises(StoreUnavailable, match="opened read-only: nothing was stored") as caught:
            await write(reader)
        assert caught.value.definite
    assert path.read_bytes() == before


async def test_waiting_sees_what_another_writes(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with SqliteStateStore(path) as writer, SqliteStateStore(path, read_only=True) as reader:
        waiting = asyncio.ensure_future(reader.wait(0, timeout=30))
        await asyncio.sleep(0)
        await writer.append(Append(event("A")))
        assert await waiting == 1
        assert await reader.wait(1, timeout=0.01) == 1


async def test_what_a_crash_left_in_the_log_is_read(tmp_path: Path) -> None:
    path, copy = tmp_path / "events.db", tmp_path / "copy.db"
    async with SqliteStateStore(path) as writer:
        await writer.append(Append(event("A")))
        for suffix in ("", "-wal"):
            Path(f"{copy}{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
    async with SqliteStateStore(copy, read_only=True) as reader:
        assert await reader.head() == 1
        assert (await reader.verify()).ok
