"""What holds for every verb: help, exit codes, which store, one line for errors, closed pipes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import evento.cli.store
from evento.cli import main
from evento.state_store import Append, NewEvent

VERBS = [
    ["demo"],
    ["run"],
    ["events", "list"],
    ["events", "tail"],
    ["events", "show"],
    ["store", "info"],
    ["store", "verify"],
    ["store", "purge"],
]
READERS = [
    ["events", "list"],
    ["events", "tail"],
    ["events", "show", "1"],
    ["store", "info"],
    ["store", "verify"],
    ["store", "purge", "--older-than", "1d", "--yes"],
]


def test_version_names_the_distributions_version(cli: Any) -> None:
    result = cli("--version")
    assert result.code == 0
    assert result.out == f"evento {version('evento-framework')}\n"


def test_help_lists_all_verbs_and_exit_codes(cli: Any) -> None:
    result = cli("--help")
    assert result.code == 0
    for word in ("demo", "run", "events", "store", "exit codes: 0 done, 1 failed"):
        assert word in result.out


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_the_help_of_each_verb_has_an_example_of_it(cli: Any, verb: list[str]) -> None:
    result = cli(*verb, "--help")
    assert result.code == 0
    assert f"example:\n  evento {' '.join(verb)} " in result.out


@pytest.mark.parametrize("words", [[], ["events"], ["store"]], ids=["evento", "events", "store"])
def test_a_missing_verb_is_wrong_use_and_shows_the_verbs(cli: Any, words: list[str]) -> None:
    result = cli(*words)
    assert result.code == 2
    assert "usage: " in result.err
    assert result.out == ""


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["events", "nonsense"],
        ["events", "list", "--nonsense"],
        ["events", "list", "--limit", "0"],
        ["events", "list", "--after", "-1"],
        ["events", "list", "--from", "yesterday"],
        ["events", "list", "--to", "2026-01-31T08:30:00"],
        ["events", "list", "--js"],
        ["events", "show"],
        ["events", "show", "x"],
        ["events", "show", "1", "--command", "c"],
        ["store", "purge"],
        ["store", "purge", "--older-than", "1y"],
        ["store", "purge", "--older-than", "1d", "--deleted-before", "2026-01-31"],
        ["events", "list", "--server", "embedded:a.db"],
    ],
    ids=" ".join,
)
def test_wrong_use_exits_with_2_and_prints_nothing_on_standard_output(cli: Any, shop: Path, words: list[str]) -> None:
    result = cli(*words, "--store", f"sqlite:{shop}")
    assert result.code == 2
    assert "error: " in result.err
    assert result.out == ""


@pytest.mark.parametrize("verb", READERS, ids=" ".join)
def test_without_any_store_it_says_what_to_give(cli: Any, verb: list[str]) -> None:
    result = cli(*verb)
    assert result.code == 2
    assert "--store sqlite:PATH" in result.err
    assert "$EVENTO_SERVER" in result.err


@pytest.mark.parametrize("verb", READERS, ids=" ".join)
def test_a_store_that_does_not_exist_is_one_clear_line_and_is_not_made(
    cli: Any, tmp_path: Path, verb: list[str]
) -> None:
    result = cli(*verb, "--store", f"sqlite:{tmp_path}/none.db")
    assert (result.code, result.out) == (1, "")
    assert result.err == f"evento: there is no store at {tmp_path}/none.db\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_a_store(cli: Any, tmp_path: Path) -> None:
    result = cli("store", "info", "--store", f"sqlite:{tmp_path}")
    assert result.code == 1
    assert result.err == f"evento: {tmp_path} is not a store: it is not a file\n"


@pytest.mark.parametrize("content", [b"", b"no database at all\n" * 100], ids=["empty", "text"])
def test_a_file_that_is_no_store_is_one_clear_line_and_stays_as_it_is(cli: Any, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    result = cli("store", "info", "--store", f"sqlite:{path}")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("evento: ")
    assert str(path) in result.err
    assert len(result.err.splitlines()) == 1
    assert "unexpected" not in result.err
    assert path.read_bytes() == content


def test_the_server_option_and_the_environment_name_an_embedded_file(
    cli: Any, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_store = cli("events", "list", "--store", f"sqlite:{shop}")
    by_server = cli("events", "list", "--server", f"embedded:{shop}")
    monkeypatch.setenv("EVENTO_SERVER", f"embedded:{shop}")
    by_environment = cli("events", "list")
    assert by_store.code == 0
    assert by_store.out.count("\n") == 7
    assert by_server == by_environment == by_store


def test_a_named_store_goes_before_the_environment(cli: Any, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTO_SERVER", "nats://elsewhere:3030")
    assert cli("store", "info", "--store", f"sqlite:{shop}").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--store", "shop.db"],
        ["--store", "sqlite:"],
        ["--store", "sqlite:///shop.db"],
        ["--store", "mysql://ann:secret@db/shop"],
        ["--server", "shop.db"],
        ["--server", "embedded:"],
        ["--server", "http://ann:secret@localhost"],
    ],
    ids=" ".join,
)
def test_a_store_named_in_a_wrong_way_is_wrong_use(cli: Any, words: list[str]) -> None:
    result = cli("store", "info", *words)
    assert result.code == 2
    assert "PATH" in result.err or "path" in result.err
    assert "secret" not in result.err


def test_a_wrong_url_of_the_consumer_state_is_wrong_use(cli: Any, shop: Path) -> None:
    for url in ("postgresql+asyncpg://ann@db:54x2/shop", "postgresql+asyncpg://ann:secret/shop"):
        result = cli("consumers", "list", "--store", f"sqlite:{shop}", "--consumers", url)
        assert (result.code, "--consumers is no SQLAlchemy URL" in result.err) == (2, True)
        assert "secret" not in result.err


@pytest.mark.parametrize("words", [["--debug", "store", "info"], ["store", "info", "--debug"]], ids=" ".join)
def test_debug_shows_the_traceback_and_may_stand_before_and_after_the_verb(
    cli: Any, tmp_path: Path, words: list[str]
) -> None:
    result = cli(*words, "--store", f"sqlite:{tmp_path}/none.db")
    assert result.code == 1
    assert "Traceback (most recent call last)" in result.err
    assert result.err.splitlines()[-1].startswith("evento: there is no store")


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_debug_by_the_environment(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, shown: bool
) -> None:
    monkeypatch.setenv("EVENTO_DEBUG", value)
    result = cli("store", "info", "--store", f"sqlite:{tmp_path}/none.db")
    assert ("Traceback" in result.err) is shown


def test_an_unexpected_error_is_one_line_too(cli: Any, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("one\ntwo")

    monkeypatch.setattr(evento.cli.store, "_print_info", broken)
    result = cli("store", "info", "--store", f"sqlite:{shop}")
    assert result.code == 1
    assert result.err == "evento: unexpected error, ZeroDivisionError: one; two (--debug shows where)\n"


def test_ctrl_c_shows_no_traceback(cli: Any, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evento.cli.store, "_print_info", interrupted)
    result = cli("store", "info", "--store", f"sqlite:{shop}")
    assert (result.code, result.err) == (1, "evento: interrupted\n")


@pytest.mark.parametrize("words", [["--json"], []], ids=["json", "table"])
def test_a_reader_that_leaves_early_is_no_error(
    tmp_path: Path, fill: Any, event: Callable[..., NewEvent], process: Any, words: list[str]
) -> None:
    path = tmp_path / "shop.db"
    fill(path, [Append(event(payload=b'{"text":"%s"}' % (b"x" * 1000))) for _ in range(1000)])
    listing = process("events", "list", "--limit", "1000", "--store", f"sqlite:{path}", *words)
    listing.stdout.readline()
    listing.stdout.close()
    assert listing.wait(30) == 0
    assert listing.stderr.read() == ""


def test_help_into_a_closed_pipe_is_quiet(process: Any) -> None:
    helping = process("--help")
    helping.stdout.close()
    assert helping.wait(30) == 0
    assert helping.stderr.read() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_a_failure(shop: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "evento", "store", "info", "--store", f"sqlite:{shop}"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=50,
            check=False,
        )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "No space left" in done.stderr


def test_the_json_is_utf_8_whatever_the_terminal_speaks(
    tmp_path: Path, fill: Any, event: Callable[..., NewEvent]
) -> None:
    path = tmp_path / "shop.db"
    fill(path, [Append(event(aggregate_id="Ö→", payload='{"text":"Ö→"}'.encode()))])
    for words, encoding, expected in ((["--json"], "utf-8", "Ö→"), ([], "latin-1", "Ö\\u2192")):
        done = subprocess.run(
            [sys.executable, "-m", "evento", "events", "list", "--store", f"sqlite:{path}", *words],
            env={"PYTHONIOENCODING": "latin-1"},
            capture_output=True,
            timeout=50,
            check=True,
        )
        assert expected in done.stdout.decode(encoding)


def test_main_takes_the_arguments_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["evento", "nonsense"])
    assert main() == 2


def test_signals_are_left_as_they_were(cli: Any, shop: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    cli("store", "info", "--store", f"sqlite:{shop}")
    assert signal.getsignal(signal.SIGINT) is before
