"""Everything is bounded: what waits, the log, and how long the event loop stands still."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from appending_worker import event
from blockbuster import blockbuster_ctx
from waiting import eventually

from evento.errors import Overloaded, StoreUnavailable
from evento.state_store import Append, Appended, EventFilter, NewEvent
from evento.state_store.sqlite import SqliteStateStore


def large_event(size: int) -> NewEvent:
    new = event("A")
    fields = {field: getattr(new, field) for field in new.__struct_fields__}
    return NewEvent(**{**fields, "payload": b'{"text":"%s"}' % (b"x" * size)})


async def test_more_operations_than_allowed_are_refused(tmp_path: Path) -> None:
    async with SqliteStateStore(tmp_path / "events.db", max_queued=10) as store:
        futures = [store.append(Append(event("A"))) for _ in range(10)]
        with pytest.raises(Overloaded, match="nothing was stored") as caught:
            store.append(Append(event("A")))
        assert caught.value.definite
        assert all(isinstance(outcome, Appended) for outcome in await asyncio.gather(*futures))
        assert isinstance(await store.append(Append(event("A"), 10)), Appended)


async def test_more_bytes_than_allowed_are_refused(tmp_path: Path) -> None:
    async with SqliteStateStore(tmp_path / "events.db", max_queued_bytes=10_000) as store:
        futures = [store.append(Append(large_event(4000))) for _ in range(2)]
        with pytest.raises(Overloaded):
            store.append(Append(large_event(4000)))
        await asyncio.gather(*futures)
        # One alone is taken, however large it is: else it could never be stored.
        assert isinstance(await store.append(Append(large_event(50_000))), Appended)
        assert isinstance(await store.append(Append(large_event(4000))), Appended)


async def test_more_reads_than_allowed_are_refused(tmp_path: Path) -> None:
    async with SqliteStateStore(tmp_path / "events.db", max_queued=10) as store:
        reads: list[Awaitable[Any]] = [store.story("A") for _ in range(11)]
        outcomes = await asyncio.gather(*reads, return_exceptions=True)
        assert [type(outcome).__name__ for outcome in outcomes].count("Overloaded") == 1
        assert (await store.story("A")).version == 0


async def test_what_waits_for_too_long_is_not_begun(tmp_path: Path) -> None:
    """As behind a disk that stalls: the clock is asked in the thread that writes."""
    stalling, goes_on = threading.Event(), threading.Event()
    goes_on.set()

    def clock() -> int:
        stalling.set()
        goes_on.wait(30)
        return 1

    async with SqliteStateStore(tmp_path / "events.db", timeout=2, clock=clock) as store:
        goes_on.clear()
        stalling.clear()
        first = store.append(Append(event("A")))
        await eventually(stalling.is_set)
        late = [store.append(Append(event("A"))) for _ in range(3)]
        over = time.monotonic() + 2
        await eventually(lambda: time.monotonic() > over)
        goes_on.set()
        assert isinstance(await first, Appended)
        for error in await asyncio.gather(*late, return_exceptions=True):
            assert isinstance(error, StoreUnavailable)
            assert error.definite
            assert "nothing was done" in str(error)
        assert isinstance(await store.append(Append(event("A"), 1)), Appended)


async def test_a_cancelled_callers_place_is_free_again(tmp_path: Path) -> None:
    async with SqliteStateStore(tmp_path / "events.db", max_queued=10) as store:
        for _ in range(20):
            futures = [store.append(Append(event("A"))) for _ in range(10)]
            for future in futures[:5]:
                future.cancel()
            await asyncio.gather(*futures[5:])
        assert await store.head() == 200


async def test_the_log_stays_short_under_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the writer's help a log never ends while somebody writes; with it, it stays near its limit."""
    monkeypatch.setattr("evento.state_store.sqlite.checkpoints._EVERY_BYTES", 512 * 1024)
    monkeypatch.setattr("evento.state_store.sqlite.checkpoints._LOG_LIMIT", 1024 * 1024)
    path = tmp_path / "events.db"
    log = path.with_name("events.db-wal")
    async with SqliteStateStore(path) as store:

        async def call() -> None:
            for _ in range(100):
                await store.append(Append(large_event(5000)))

        for written in range(6400, 64_001, 6400):  # a disk may stand still for as long as it takes to write a part
            await asyncio.gather(*(call() for _ in range(64)))
            assert await store.head() == written
            if path.stat().st_size > 2 * log.stat().st_size:
                return
        pytest.fail(f"the log has {log.stat().st_size:,} bytes, the file {path.stat().st_size:,}")


async def test_the_event_loop_never_waits_for_the_disk(tmp_path: Path) -> None:
    with blockbuster_ctx():
        async with SqliteStateStore(tmp_path / "events.db") as store:
            await asyncio.gather(*(store.append(Append(event(f"A{number}"))) for number in range(100)))
            await store.story("A1", fingerprint="f")
            await store.fetch(0)
            await store.search(EventFilter(name="Noted"))
            await store.lookup("c1")
            await store.info()
            await store.verify()
            await store.purge(deleted_before=0)
        async with SqliteStateStore(tmp_path / "events.db", read_only=True) as store:
            await store.wait(100, 0.01)
