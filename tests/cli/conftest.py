"""A terminal for tests: the command in this process and as a process of its own, and stores to point it at."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from evento.cli import main
from evento.messages import EventRecord
from evento.messages.ids import new_id
from evento.state_store import Append, Appended, NewEvent
from evento.state_store.sqlite import SqliteStateStore

JAN_1 = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
DAY = 86_400_000_000


@dataclass
class Result:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(line) for line in self.out.splitlines()]


class Cli(Protocol):
    def __call__(self, *argv: str | Path) -> Result: ...


class Fill(Protocol):
    def __call__(self, path: Path, appends: Iterable[Append]) -> list[EventRecord]: ...


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVENTO_SERVER", raising=False)
    monkeypatch.delenv("EVENTO_DEBUG", raising=False)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run the command in this process."""

    def run(*argv: str | Path) -> Result:
        code = main([str(argument) for argument in argv])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def shell(tmp_path: Path) -> Cli:
    """Run the command as a process of its own, in an empty folder."""

    def run(*argv: str | Path) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "evento", *map(str, argv)],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def process(tmp_path: Path) -> Iterable[Callable[..., subprocess.Popen[str]]]:
    """Start the command as a process of its own; it is ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*argv: str | Path, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "evento", *map(str, argv)],
            cwd=tmp_path,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


@pytest.fixture
def event() -> Callable[..., NewEvent]:
    """Make an event to store; the keywords replace what it has by default."""

    def make(**fields: Any) -> NewEvent:
        message_id = new_id()
        defaults: dict[str, Any] = {
            "context": "default",
            "aggregate_id": "ORD_1",
            "name": "OrderPlacedEvent",
            "schema_version": 1,
            "kind": "domain",
            "payload": b'{"order_id":"ORD_1","total":12.50}',
            "metadata": b'{"user":"ann"}',
            "event_id": new_id(),
            "command_id": message_id,
            "correlation_id": message_id,
            "causation_id": message_id,
            "timestamp": JAN_1,
        }
        return NewEvent(**{**defaults, **fields})

    return make


@pytest.fixture
def fill() -> Fill:
    """Append to the store at a path, which is made when it is not there, through the port."""

    async def append_all(path: Path, appends: Iterable[Append]) -> list[EventRecord]:
        async with SqliteStateStore(str(path)) as store:
            outcomes = [await store.append(append) for append in appends]
        records = [outcome.record for outcome in outcomes if isinstance(outcome, Appended)]
        assert len(records) == len(outcomes), outcomes
        return records

    def run(path: Path, appends: Iterable[Append]) -> list[EventRecord]:
        return asyncio.run(append_all(path, appends))

    return run


@pytest.fixture
def shop(tmp_path: Path, fill: Fill, event: Callable[..., NewEvent]) -> Path:
    """A store of six events: three of ORD_1 (deleted by the last), two of ORD_2, and one that belongs to nobody."""
    path = tmp_path / "shop.db"
    fill(
        path,
        [
            Append(event(timestamp=JAN_1)),
            Append(event(timestamp=JAN_1 + DAY, aggregate_id="ORD_2", context="eu", payload=b'{"order_id":"ORD_2"}')),
            Append(event(timestamp=JAN_1 + DAY, name="OrderPaidEvent")),
            Append(
                event(
                    timestamp=JAN_1 + 2 * DAY + 1,
                    name="ParcelSentEvent",
                    kind="service",
                    aggregate_id=None,
                    causation_id=None,
                    schema_version=3,
                    payload=b"{}",
                    metadata=b"{}",
                )
            ),
            Append(event(timestamp=JAN_1 + 3 * DAY, name="OrderDeletedEvent"), deletes=True),
            Append(event(timestamp=JAN_1 + 4 * DAY, name="OrderPaidEvent", aggregate_id="ORD_2", context="eu")),
        ],
    )
    return path
