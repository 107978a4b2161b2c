"""``evento consumers`` beside a running bundle and on the files of a stopped one."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url
from streams import Seen, ThingAddedEvent, ThingProjector, add, group_of
from waiting import eventually

from evento import EventMessage, EventoBundle
from evento.consumers import ConsumerGroup, SqlConsumerStateStore
from evento.state_store.sqlite import SqliteStateStore

STATUS_KEYS = """
    bundle component version context state position head lag_events lag_seconds errors last_error failing_since dead
    waiting retrying
"""
DEAD_KEYS = """
    position event_id event_name context aggregate_id key waiting retry error_type error_message traceback attempts
    parked_at
"""


class Shop:
    """Files with a consumer that has one dead event at 1, which 3 and 4 wait behind."""

    def __init__(self, path: Path, consumers: str | None = None) -> None:
        self.path = path
        self.consumers = consumers or f"sqlite+aiosqlite:///{path}-consumers"
        self.broken = True
        self.seen = Seen()

    @property
    def store(self) -> tuple[str, str]:
        return "--store", f"sqlite:{self.path}"

    async def handle(self, message: EventMessage[Any]) -> None:
        if self.broken and message.position == 1:
            raise ValueError("größe is\nmissing")
        await self.seen(message)

    async def run(self, work: Callable[[ConsumerGroup], Awaitable[None]]) -> None:
        poll = timedelta(milliseconds=20)
        async with SqliteStateStore(self.path) as events, SqlConsumerStateStore(self.consumers) as state:
            if not await events.head():
                await add(events, *(ThingAddedEvent(name) for name in "ABAA"))
            projector = ThingProjector(self.handle)
            async with group_of(events, state, projector, take_over=True, fetch_delay=poll) as group:
                await work(group)

    def run_to_end(self) -> None:
        """Run the consumer until it has nothing left to do."""
        asyncio.run(self.run(lambda group: group.caught_up(20)))


@pytest.fixture
def things(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path / "things.db")
    shop.run_to_end()
    return shop


@pytest.fixture
def running(things: Shop) -> Iterator[Shop]:
    """The same, with the bundle running in another thread."""
    started = threading.Event()
    stop: list[Callable[[], object]] = []

    async def work(group: ConsumerGroup) -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(ended.set))
        await group.caught_up(20)
        started.set()
        await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(things.run(work)))
    thread.start()
    assert started.wait(30)
    yield things
    stop[0]()
    thread.join(30)
    assert not thread.is_alive()


def test_list_and_show(cli: Any, things: Shop) -> None:
    result = cli("consumers", "list", *things.store)
    assert (result.code, result.err) == (0, "")
    head, line = result.out.splitlines()
    assert head.split() == ["CONSUMER", "STATE", "POSITION", "LAG", "AGE", "DEAD", "WAITING", "ERRORS"]
    assert line.split()[:5] == ["ThingProjector", "v1", "[*]", "of", "test_bundle"]
    assert line.split()[5:] == ["stopped", "4", "0", "0", "s", "1", "2", "0"]
    (status,) = cli("consumers", "list", "--json", *things.store).objects
    assert list(status) == STATUS_KEYS.split()
    assert (status["position"], status["head"], status["dead"], status["waiting"]) == ("4", "4", 1, 2)
    assert (status["lag_events"], status["lag_seconds"]) == (0, 0)
    shown = cli("consumers", "show", "ThingProjector", *things.store)
    assert "last error     ValueError: größe is\\nmissing" in shown.out
    assert cli("consumers", "show", "ThingProjector", "--json", *things.store).objects == [status]


def test_dead_list(cli: Any, things: Shop) -> None:
    result = cli("consumers", "dead", "list", "ThingProjector", *things.store)
    assert (result.code, result.err) == (0, "")
    first, *rest = result.out.splitlines()
    assert "ThingAddedEvent  A  dead after 3 attempts, ValueError: größe is\\nmissing" in first
    assert [line.split()[0] for line in rest] == ["3", "4"]
    assert all(line.endswith("waits") for line in rest)
    events = cli("consumers", "dead", "list", "ThingProjector", "--json", *things.store).objects
    assert [event["position"] for event in events] == ["1", "3", "4"]
    assert list(events[0]) == DEAD_KEYS.split()
    assert "in on_added" in events[0]["traceback"]
    assert events[1]["error_type"] is None

    def positions(*conditions: str) -> list[str]:
        found = cli("consumers", "dead", "list", "ThingProjector", "--json", *conditions, *things.store).objects
        return [event["position"] for event in found]

    assert positions("--dead") == ["1"]
    assert positions("--waiting") == ["3", "4"]
    assert positions("--after", "1", "--limit", "1") == ["3"]
    assert positions("--key", "B") == positions("--error", "KeyError") == positions("--name", "No") == []


def test_a_retry_is_done_by_the_next_start(cli: Any, things: Shop) -> None:
    result = cli("consumers", "dead", "retry", "ThingProjector", "1", *things.store)
    assert (result.code, result.err) == (0, "")
    assert result.out == (
        "marked for a retry: 1 event of ThingProjector v1 [*] of test_bundle (no bundle runs it: its next start "
        "follows)\n"
    )
    things.broken = False
    things.run_to_end()
    assert things.seen.positions == [2, 1, 3, 4]
    assert cli("consumers", "list", "--json", *things.store).objects[0]["dead"] == 0


def test_a_retry_is_taken_up_by_the_running_bundle(cli: Any, running: Shop) -> None:
    assert cli("consumers", "list", "--json", *running.store).objects[0]["state"] == "running"
    running.broken = False
    (answer,) = cli("consumers", "retry", "ThingProjector", "--all", "--json", *running.store).objects
    assert (answer["events"], answer["running"]) == (1, True)
    asyncio.run(eventually(lambda: running.seen.positions == [2, 1, 3, 4]))


def test_pause_and_resume(cli: Any, running: Shop) -> None:
    assert "the running bundle follows" in cli("consumers", "pause", "ThingProjector", *running.store).out

    def state() -> str:
        return str(cli("consumers", "show", "ThingProjector", "--json", *running.store).objects[0]["state"])

    assert state() == "paused"
    assert cli("consumers", "resume", "ThingProjector", *running.store).code == 0
    assert state() == "running"


def test_cancelling_a_retry(cli: Any, things: Shop) -> None:
    cli("consumers", "dead", "retry", "ThingProjector", "--key", "A", *things.store)
    assert cli("consumers", "list", "--json", *things.store).objects[0]["retrying"] == 3
    assert cli("consumers", "dead", "retry", "ThingProjector", "--all", "--cancel", *things.store).code == 0
    assert cli("consumers", "list", "--json", *things.store).objects[0]["retrying"] == 0


def test_discard(cli: Any, things: Shop) -> None:
    unsure = cli("consumers", "dead", "discard", "ThingProjector", "1", *things.store)
    assert (unsure.code, unsure.out) == (2, "")
    assert "add --yes" in unsure.err
    result = cli("consumers", "discard", "ThingProjector", "1", "--yes", *things.store)
    assert result.code == 0
    assert result.out.startswith("discarded: 1 event of ThingProjector v1")
    things.run_to_end()
    assert things.seen.positions == [2, 3, 4]


def test_wrong_use(cli: Any, things: Shop, tmp_path: Path) -> None:
    for words in (["dead", "retry", "ThingProjector"], ["discard", "ThingProjector", "1", "--all", "--yes"]):
        result = cli("consumers", *words, *things.store)
        assert result.code == 2
        assert "say which events" in result.err
    unknown = cli("consumers", "pause", "NoProjector", *things.store)
    assert (unknown.code, len(unknown.err.splitlines())) == (1, 1)
    assert "there are: ThingProjector v1 [*] of test_bundle" in unknown.err
    waits = cli("consumers", "dead", "retry", "ThingProjector", "3", *things.store)
    assert waits.code == 1
    assert "only waits for the dead event at position 1" in waits.err
    other = cli("consumers", "show", "ThingProjector", "--version", "2", *things.store)
    assert (other.code, "no consumer ThingProjector v2" in other.err) == (1, True)


def test_the_consumer_state_is_named_as_the_store_is(cli: Any, things: Shop, tmp_path: Path) -> None:
    elsewhere = things.path.with_name("readmodel.db")
    Path(f"{things.path}-consumers").rename(elsewhere)
    expected = [("ThingProjector", 4)]

    for consumers in (f"sqlite:{elsewhere}", f"sqlite:///{elsewhere}", f"sqlite+aiosqlite:///{elsewhere}"):
        result = cli("consumers", "list", "--json", *things.store, "--consumers", consumers)
        assert [(each["component"], int(each["position"])) for each in result.objects] == expected
    unnamed = cli("consumers", "list", *things.store)
    assert (unnamed.code, "--consumers sqlite:PATH" in unnamed.err) == (1, True)
    path = cli("consumers", "list", *things.store, "--consumers", str(elsewhere))
    assert (path.code, f"--consumers='{elsewhere}' is no SQLAlchemy URL" in path.err) == (2, True)
    assert "or like sqlite:PATH, such as sqlite:readmodel.db" in path.err


def test_the_password_of_the_consumer_state_is_not_on_the_command_line(
    cli: Any, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(tmp_path / "things.db", database)
    shop.run_to_end()
    url = make_url(database)
    option_file = tmp_path / "my.cnf"
    option_file.write_text(f"[client]\npassword={url.password}\n")
    monkeypatch.setenv("PGPASSWORD", str(url.password))
    without = database.replace(f":{url.password}@", "@")
    if url.get_backend_name() == "mysql":
        without += f"?read_default_file={option_file}"

    result = cli("consumers", "list", "--json", *shop.store, "--consumers", without)

    assert (result.err, [each["position"] for each in result.objects]) == ("", ["4"])


def test_what_is_not_safe_is_refused(cli: Any, things: Shop, tmp_path: Path) -> None:
    consumers = f"sqlite+aiosqlite:///{things.path}-consumers"
    alone = tmp_path / "alone.db"

    async def make() -> None:
        async with EventoBundle("alone", server=f"embedded:{alone}"):
            pass

    asyncio.run(make())
    mixed = cli("consumers", "pause", "ThingProjector", "--store", f"sqlite:{alone}", "--consumers", consumers)
    assert mixed.code == 1
    assert "has read another event store" in mixed.err
    nowhere = cli("consumers", "list", *things.store, "--consumers", f"sqlite:///{tmp_path / 'nowhere'}")
    assert (nowhere.code, "there is no consumer state at" in nowhere.err) == (1, True)
    assert not (tmp_path / "nowhere").exists()
    with sqlite3.connect(f"{things.path}-consumers") as connection:
        connection.execute("UPDATE evento_consumer_schema SET version = 1")
    connection.close()
    older = cli("consumers", "list", *things.store)
    assert (older.code, "has schema version 1" in older.err) == (1, True)
    with sqlite3.connect(f"{things.path}-consumers") as check:
        assert check.execute("SELECT version FROM evento_consumer_schema").fetchall() == [(1,)]
    check.close()


def test_reading_waits_for_no_writer(cli: Any, things: Shop) -> None:
    with sqlite3.connect(f"{things.path}-consumers") as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert cli("consumers", "list", *things.store).code == 0
        writer.rollback()
    writer.close()
