"""Leases and tombstones go by the store's clock, which the tests set."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from appending_worker import event

from evento.errors import ErrorData
from evento.state_store import Append, Appended, LeaseIsLost, NewEvent, Refused
from evento.state_store.port import MAX_TOMBSTONE_SECONDS
from evento.state_store.sqlite import SqliteStateStore

ERROR = ErrorData("CommandRejected", "CommandRejected", "no")


class Clock:
    """Microseconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 10**15

    def __call__(self) -> int:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += int(seconds * 1_000_000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def append(command_id: str) -> Append:
    new = event("A")
    fields = {field: getattr(new, field) for field in new.__struct_fields__}
    return Append(NewEvent(**{**fields, "command_id": command_id}))


async def test_a_tombstone_refuses_as_long_as_a_request_may_live(clock: Clock) -> None:
    async with SqliteStateStore(None, clock=clock) as store:
        await store.reject("c1", ERROR)
        clock.pass_seconds(MAX_TOMBSTONE_SECONDS - 0.001)
        assert await store.lookup("c1") == Refused(ERROR)
        assert await store.append(append("c1")) == Refused(ERROR)
        clock.pass_seconds(0.001)
        assert await store.lookup("c1") is None
        assert isinstance(await store.append(append("c1")), Appended)


async def test_an_expired_tombstone_can_be_written_again(clock: Clock) -> None:
    async with SqliteStateStore(None, clock=clock) as store:
        await store.reject("c1", ERROR)
        clock.pass_seconds(MAX_TOMBSTONE_SECONDS)
        other = ErrorData("CommandRejected", "Other", "other")
        assert await store.reject("c1", other) is None
        assert await store.lookup("c1") == Refused(other)


async def test_expired_tombstones_are_swept(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "events.db"
    async with SqliteStateStore(path, clock=clock) as store:
        for number in range(250):
            await store.reject(f"old-{number}", ERROR)
        clock.pass_seconds(MAX_TOMBSTONE_SECONDS)
        for number in range(3):
            await store.reject(f"new-{number}", ERROR)
    with closing(sqlite3.connect(path)) as connection:
        left = {row[0] for row in connection.execute("SELECT command_id FROM tombstones")}
    assert left == {"new-0", "new-1", "new-2"}


async def test_a_lease_lasts_exactly_its_time(clock: Clock) -> None:
    async with SqliteStateStore(None, clock=clock) as store:
        lease = await store.lock("L", owner="a", ttl=10)
        assert lease is not None
        clock.pass_seconds(9.999)
        assert await store.lock("L", owner="b", ttl=10) is None
        assert await store.renew(lease, ttl=10)
        clock.pass_seconds(9.999)
        assert isinstance(await store.append(Append(event("A"), lease=lease)), Appended)
        clock.pass_seconds(0.001)
        assert await store.append(Append(event("A"), lease=lease)) == LeaseIsLost()
        assert not await store.renew(lease, ttl=10)
        assert await store.lock("L", owner="b", ttl=10) is not None


async def test_a_clock_that_goes_back_lets_nobody_in(clock: Clock) -> None:
    async with SqliteStateStore(None, clock=clock) as store:
        first = await store.lock("L", owner="a", ttl=10)
        assert first is not None
        clock.pass_seconds(11)
        second = await store.lock("L", owner="b", ttl=10)
        assert second is not None
        clock.pass_seconds(-11)
        assert await store.append(Append(event("A"), lease=first)) == LeaseIsLost()
        assert not await store.renew(first, ttl=10)
        assert isinstance(await store.append(Append(event("A"), lease=second)), Appended)


async def test_the_systems_clock_may_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's own clock starts with the system's time and then counts by itself."""
    async with SqliteStateStore(None) as store:
        lease = await store.lock("L", owner="a", ttl=60)
        assert lease is not None
        monkeypatch.setattr("time.time_ns", lambda: 0)
        assert await store.renew(lease, ttl=60)
        monkeypatch.setattr("time.time_ns", lambda: 2**62)
        assert await store.renew(lease, ttl=60)


async def test_a_kept_lease_outlives_a_restart_but_not_a_clock_that_was_set_back(clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with SqliteStateStore(path, clock=clock, keep_leases=True) as store:
        lease = await store.lock("PAY_1", owner="a", ttl=30)
        assert lease is not None
    clock.pass_seconds(-3600)
    async with SqliteStateStore(path, clock=clock, keep_leases=True) as store:
        assert await store.lock("PAY_1", owner="b", ttl=30) is None
        clock.pass_seconds(61)
        assert not await store.renew(lease, ttl=30)
        assert await store.lock("PAY_1", owner="b", ttl=30) is not None
