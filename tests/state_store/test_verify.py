"""Each kind of damage is found and named. The files are damaged with SQLite itself, as a person could do it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from appending_worker import event

from evento.errors import StoreUnavailable
from evento.state_store import Append, NewEvent, Snapshot
from evento.state_store.sqlite import SqliteStateStore


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A store with what can be damaged: streams A (3 events), B (2), D (purged), a service event, a snapshot."""
    path = tmp_path / "events.db"
    async with SqliteStateStore(path) as store:
        for number in range(3):
            await store.append(Append(event("A"), number, "A", number))
        for _ in range(2):
            await store.append(Append(event("B"), boundary="LOCK"))
        for last in (False, False, True):
            await store.append(Append(event("D"), deletes=last))
        service: NewEvent = event("none")
        fields = {field: getattr(service, field) for field in service.__struct_fields__}
        await store.append(Append(NewEvent(**{**fields, "aggregate_id": None, "kind": "service"})))
        await store.snapshot(Snapshot("A", 2, "f", b"{}"))
        await store.purge(deleted_before=2**62)
        assert (await store.verify()).problems == ()
    return path


DAMAGES = {
    "an event is gone": ("DELETE FROM events WHERE position = 4", "positions 4 to 4 have no events"),
    "the newest event is gone": (
        "DELETE FROM events WHERE position = 9",
        "the head is 9, but the newest event is at 8",
    ),
    "the first version is gone": ("DELETE FROM events WHERE position = 1", "aggregate A has version 2 after 0"),
    "a version is skipped": ("UPDATE events SET version = 5 WHERE position = 3", "aggregate A has version 5 after 2"),
    "versions and positions disagree": (
        "UPDATE events SET version = 7 WHERE position = 1; UPDATE events SET version = 1 WHERE position = 2;"
        "UPDATE events SET version = 2 WHERE position = 1",
        "version 2 of aggregate A is at position 1, before its predecessor",
    ),
    "a purged range is forgotten": ("DELETE FROM purged_ranges", "positions 6 to 7 have no events"),
    "a purged range is too long": ("UPDATE purged_ranges SET last = 8", "the purged range 6 to 8 is not the gap"),
    "a purged range is made up": ("INSERT INTO purged_ranges VALUES (20, 30)", "the purged range 20 to 30 is not"),
    "the head is behind": ("UPDATE head SET position = 8", "the head is 8, but the newest event is at 9"),
    "the head is ahead": ("UPDATE head SET position = 99", "the head is 99, but the newest event is at 9"),
    "the stream counter is behind": ("UPDATE head SET stream = 1", "counts 1 as the newest stream, but there is 4"),
    "the token counter is behind": (
        "INSERT INTO locks VALUES ('L', 7, 'a', 0, NULL)",
        "counts 0 as the newest token, but there is 7",
    ),
    "a stream row is behind": (
        "UPDATE streams SET version = 2 WHERE aggregate_id = 'A'",
        "the stream row of aggregate A has version 2, but its newest event 3",
    ),
    "a stream row is ahead": (
        "UPDATE streams SET version = 9 WHERE aggregate_id = 'B'",
        "B has version 9, but its newest",
    ),
    "a stream row is gone": (
        "DELETE FROM streams WHERE aggregate_id = 'B'",
        "event 4 of aggregate B is not in that aggregate's stream",
    ),
    "an event is in another's stream": (
        "UPDATE events SET aggregate_id = 'B' WHERE position = 1",
        "event 1 of aggregate B is not in that aggregate's stream",
    ),
    "an event has lost its version": (
        "UPDATE events SET stream = NULL, aggregate_id = NULL WHERE position = 3",
        "event 3 of aggregate None is not in that aggregate's stream",
    ),
    "an event came after the deletion": (
        "UPDATE streams SET deleted_at = 5 WHERE aggregate_id = 'D'",
        "aggregate D was deleted at 5, but its newest event is of",
    ),
    "a living aggregate is marked as deleted": (
        "UPDATE streams SET deleted_at = 5 WHERE aggregate_id = 'A'",
        "aggregate A was deleted at 5",
    ),
    "a command id has two events": (
        "DROP INDEX events_command;"
        "UPDATE events SET command_id = (SELECT command_id FROM events WHERE position = 1) WHERE position = 2",
        "has 2 events",
    ),
    "a purged command id is there": (
        "UPDATE purged_commands SET command_id = (SELECT command_id FROM events WHERE position = 1) "
        "WHERE command_id = (SELECT min(command_id) FROM purged_commands)",
        "has an event and is noted as purged",
    ),
    "a purged command id is forgotten": (
        "DELETE FROM purged_commands WHERE command_id = (SELECT min(command_id) FROM purged_commands)",
        "1 command ids are noted as purged, but the purged ranges are of 2 events",
    ),
    "a boundary counts too much": (
        "UPDATE streams SET boundary_version = 50 WHERE aggregate_id = 'LOCK'",
        "the boundary versions count 53 appends, but there were 9",
    ),
    "a boundary counts below zero": ("UPDATE streams SET boundary_version = -1", "a boundary version is -1"),
    "a payload is no JSON": ("UPDATE events SET payload = '{' WHERE position = 2", "the payload of event 2 is not"),
    "a payload is no object": ("UPDATE events SET payload = '[1]' WHERE position = 2", "the payload of event 2 is not"),
    "a payload is no text": (
        "UPDATE events SET payload = CAST(x'7b22ff227d' AS TEXT) WHERE position = 2",
        "the payload of event 2 is not",
    ),
    "metadata is no object of texts": (
        """UPDATE events SET metadata = '{"user": 1}' WHERE position = 2""",
        "the metadata of event 2 is not",
    ),
    "a kind is unknown": (
        "UPDATE events SET kind = 'other' WHERE position = 2",
        "event 2 is of the unknown kind 'other'",
    ),
    "a snapshot is ahead": ("UPDATE snapshots SET version = 4", "snapshot f of aggregate A is of version 4, beyond 3"),
    "a snapshot is of nothing": (
        "UPDATE snapshots SET aggregate_id = 'Z'",
        "snapshot f of aggregate Z is of version 2",
    ),
    "a snapshot is no JSON": ("UPDATE snapshots SET state = '{'", "snapshot f of aggregate A is not JSON"),
    "an index is gone": ("DROP INDEX events_name", "the schema lacks index events_name"),
    "a constraint is gone": (
        "DROP INDEX events_stream; CREATE INDEX events_stream ON events (stream, version)",
        "the schema has another index events_stream than Evento made",
    ),
    "a table was added": ("CREATE TABLE notes (text)", "the schema has table notes, which is not Evento's"),
}


@pytest.mark.parametrize(("damage", "problem"), DAMAGES.values(), ids=DAMAGES.keys())
async def test_damage_is_named(path: Path, damage: str, problem: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(damage)
    async with SqliteStateStore(path, read_only=True) as store:
        report = await store.verify()
    assert not report.ok
    assert [found for found in report.problems if problem in found], report.problems


async def test_the_list_of_problems_is_bounded(path: Path) -> None:
    async with SqliteStateStore(path) as store:
        for number in range(300):
            await store.append(Append(event("A"), 3 + number))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("UPDATE events SET payload = '{'")
    async with SqliteStateStore(path, read_only=True) as store:
        report = await store.verify()
    assert report.events == 307
    assert report.problems[-1] == "and 282 more like the one before"
    assert len(report.problems) == 26


async def test_a_damaged_page_is_found(path: Path) -> None:
    """The file's pages are overwritten one after another; whatever it was, no damage goes unseen."""
    intact = path.read_bytes()
    page_size = 4096
    for page in range(1, len(intact) // page_size):
        damaged = bytearray(intact)
        damaged[page * page_size : page * page_size + 64] = b"\xa5" * 64
        path.write_bytes(damaged)
        try:
            async with SqliteStateStore(path, read_only=True) as store:
                report = await store.verify()
        except StoreUnavailable as error:
            assert "damaged" in error.message  # noqa: PT017 - a damaged head is found when it is opened
        else:
            assert not report.ok, f"page {page}"
