"""``evento store info``, ``verify`` and ``purge``."""

from __future__ import annotations

import asyncio
import io
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from evento.cli.output import Progress
from evento.state_store.sqlite import SqliteStateStore


def test_info_says_what_the_store_is_and_holds(cli: Any, shop: Path) -> None:
    result = cli("store", "info", "--store", f"sqlite:{shop}")
    assert (result.code, result.err) == (0, "")
    facts = dict(line.split("  ", 1) for line in result.out.splitlines())
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    assert str(shop) in facts["location"]
    assert facts["head"] == facts["events"] == "6"
    assert facts["aggregates"] == "2 (1 deleted)"


def test_info_as_json(cli: Any, shop: Path) -> None:
    info = cli("store", "info", "--json", "--store", f"sqlite:{shop}").objects[0]
    assert list(info) == [
        "store_id",
        "epoch",
        "schema_version",
        "head",
        "events",
        "aggregates",
        "deleted_aggregates",
        "snapshots",
        "purged_ranges",
        "size",
        "location",
    ]
    assert (info["head"], info["events"], info["aggregates"], info["deleted_aggregates"]) == ("6", 6, 2, 1)
    assert info["size"] > 0


def test_verify_of_a_sound_store(cli: Any, shop: Path) -> None:
    result = cli("store", "verify", "--store", f"sqlite:{shop}")
    assert (result.code, result.out, result.err) == (0, "6 events of 2 aggregates: ok\n", "")
    report = cli("store", "verify", "--json", "--store", f"sqlite:{shop}").objects
    assert report == [{"ok": True, "events": 6, "aggregates": 2, "problems": []}]


def test_verify_names_what_is_broken_and_exits_with_1(cli: Any, damaged: Path) -> None:
    result = cli("store", "verify", "--store", f"sqlite:{damaged}")
    assert result.code == 1
    assert "broken: " in result.out
    assert "ORD_2" in result.out
    assert len(result.err.splitlines()) == 1
    assert "broken" in result.err
    program = cli("store", "verify", "--json", "--store", f"sqlite:{damaged}")
    assert program.code == 1
    (report,) = program.objects
    assert report["ok"] is False
    assert any("ORD_2" in problem for problem in report["problems"])


def test_a_reader_that_leaves_does_not_change_what_verify_found(process: Any, damaged: Path) -> None:
    verify = process("store", "verify", "--store", f"sqlite:{damaged}")
    verify.stdout.close()
    assert verify.wait(30) == 1


def test_a_store_of_a_newer_version_is_one_clear_line(cli: Any, shop: Path) -> None:
    _change(shop, "UPDATE meta SET schema_version = 99")
    for words in (["events", "list"], ["store", "info"], ["store", "purge", "--older-than", "1d", "--yes"]):
        result = cli(*words, "--store", f"sqlite:{shop}")
        assert (result.code, result.out) == (1, "")
        assert len(result.err.splitlines()) == 1
        assert "newer" in result.err


def test_a_dry_run_says_what_would_go_and_removes_nothing(cli: Any, shop: Path) -> None:
    words = ["store", "purge", "--older-than", "0s", "--dry-run", "--store", f"sqlite:{shop}"]
    result = cli(*words)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("would remove 2 events of 1 deleted aggregates\n")
    (report,) = cli(*words, "--json").objects
    assert report["dry_run"] is True
    assert (report["events"], report["aggregates"], report["ranges"]) == (2, 1, [["1", "1"], ["3", "3"]])
    assert report["deleted_before"].endswith("Z")
    assert cli("store", "info", "--json", "--store", f"sqlite:{shop}").objects[0]["events"] == 6


def test_purge_removes_the_events_of_deleted_aggregates_and_leaves_a_sound_store(cli: Any, shop: Path) -> None:
    result = cli("store", "purge", "--older-than", "0s", "--yes", "--store", f"sqlite:{shop}")
    assert result.code == 0
    assert result.out.startswith("removed 2 events of 1 deleted aggregates\n")
    left = cli("events", "list", "--json", "--store", f"sqlite:{shop}").objects
    assert [event["position"] for event in left] == ["2", "4", "5", "6"]
    assert cli("store", "verify", "--store", f"sqlite:{shop}").code == 0
    again = cli("store", "purge", "--older-than", "0s", "--yes", "--json", "--store", f"sqlite:{shop}")
    assert (again.objects[0]["events"], again.objects[0]["dry_run"]) == (0, False)


@pytest.mark.parametrize(
    ("when", "events"),
    [
        (["--older-than", "9999d"], 0),
        (["--deleted-before", "2026-01-04"], 0),  # ORD_1 was deleted at this very moment
        (["--deleted-before", "2026-01-04T00:00:00.000001Z"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_purge_spares_what_was_deleted_later(cli: Any, shop: Path, when: list[str], events: int) -> None:
    (report,) = cli("store", "purge", *when, "--yes", "--json", "--store", f"sqlite:{shop}").objects
    assert report["events"] == events


def test_purge_is_refused_when_nobody_can_be_asked(cli: Any, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    result = cli("store", "purge", "--older-than", "0s", "--store", f"sqlite:{shop}")
    assert result.code == 2
    assert "--yes" in result.err
    assert cli("store", "info", "--json", "--store", f"sqlite:{shop}").objects[0]["events"] == 6


class Terminal(io.StringIO):
    """Somebody types here."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "left"), [("y\n", 4), ("YES\n", 4), ("n\n", 6), ("\n", 6), ("", 6)])
def test_purge_asks_on_a_terminal(
    cli: Any, shop: Path, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    with monkeypatch.context() as patch:
        screen = Terminal()
        patch.setattr(sys, "stdin", Terminal(answer))
        patch.setattr(sys, "stderr", screen)
        result = cli("store", "purge", "--older-than", "0s", "--store", f"sqlite:{shop}")
    assert "2 events of 1 deleted aggregates" in screen.getvalue()
    assert "[y/N]" in screen.getvalue()
    assert result.code == (0 if left == 4 else 1)
    assert ("nothing was purged" in screen.getvalue()) is (left == 6)
    assert cli("store", "info", "--json", "--store", f"sqlite:{shop}").objects[0]["events"] == left


def test_purge_does_not_ask_when_there_is_nothing_to_purge(
    cli: Any, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", Terminal("n\n"))
        patch.setattr(sys, "stderr", Terminal())
        assert cli("store", "purge", "--older-than", "9999d", "--store", f"sqlite:{shop}").code == 0


async def test_purge_is_refused_while_another_process_holds_the_store_and_reading_is_not(
    shell: Any, shop: Path
) -> None:
    def run(*words: str) -> Any:
        return shell(*words, "--store", f"sqlite:{shop}")

    async with SqliteStateStore(str(shop)):
        purge = await asyncio.to_thread(run, "store", "purge", "--older-than", "0s", "--yes")
        reads = [
            await asyncio.to_thread(run, *words)
            for words in (["events", "list"], ["store", "info"], ["store", "verify"])
        ]
    assert (purge.code, purge.out) == (1, "")
    assert len(purge.err.splitlines()) == 1
    assert str(shop) in purge.err
    assert [read.code for read in reads] == [0, 0, 0]


def test_progress_off_a_terminal_is_a_line_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("verify", every=0.0)
    progress(1500, 6000)
    progress.close()
    assert capsys.readouterr().err == "verify: 1,500 of 6,000 events (25 %)\n"


def test_progress_is_silent_when_all_is_done_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("verify")
    progress(6000, 6000)
    progress.close()
    assert capsys.readouterr().err == ""


def test_progress_on_a_terminal_rewrites_its_line_and_takes_it_away(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    progress = Progress("verify", every=5.0)
    progress._next = 0.0
    progress(1, 2)
    progress.close()
    assert screen.getvalue() == "\rverify: 1 of 2 events (50 %)\x1b[K\r\x1b[K"


@pytest.fixture
def damaged(shop: Path) -> Path:
    """A store in which an event of ORD_2 has lost its version."""
    _change(shop, "UPDATE events SET version = 7 WHERE position = 6")
    return shop


def _change(store: Path, statement: str) -> None:
    """Do to a store what Evento itself never does."""
    database = sqlite3.connect(store, isolation_level=None)
    try:
        assert database.execute(statement).rowcount == 1
    finally:
        database.close()
