"""``evento demo``."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def test_once_from_an_empty_folder_says_what_it_did_and_can_be_repeated(shell: Any, tmp_path: Path) -> None:
    events = []
    for _ in range(2):
        result = shell("demo", "--once")
        assert result.code == 0, result.err
        (found,) = re.findall(r"the store holds ([\d,]+) events", result.out)
        events.append(int(found))
    assert 0 < events[0] < events[1]
    assert [path.name for path in tmp_path.iterdir()] == ["evento-demo"]


def test_the_data_can_be_read_with_the_other_verbs(shell: Any) -> None:
    assert shell("demo", "--once", "--data", "my data").code == 0
    listed = shell("events", "list", "--json", "--store", "sqlite:my data/todolist.db")
    assert listed.code == 0
    assert listed.objects[1]["name"] == "TodoListCreatedEvent"
    assert shell("store", "verify", "--store", "sqlite:my data/todolist.db").code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_it_serves_until_a_signal(process: Any, number: signal.Signals) -> None:
    demo = process("demo", "--port", "0")
    for line in demo.stdout:
        if "Traffic flows" in line:
            break
    demo.send_signal(number)
    assert demo.wait(30) == 0
    assert "Traceback" not in demo.stderr.read()


def test_a_taken_port_is_one_clear_line(shell: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = shell("demo", "--port", str(port))
    assert result.code == 1
    (line,) = result.err.splitlines()
    assert line.startswith("evento: ")
    assert str(port) in line


def test_data_that_is_no_folder_is_one_clear_line(shell: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = shell("demo", "--once", "--data", "file")
    assert result.code == 1
    (line,) = result.err.splitlines()
    assert line.startswith("evento: ")
    assert "unexpected" not in line


def test_a_reader_that_leaves_early_is_no_error(process: Any) -> None:
    demo = process("demo", "--once")
    demo.stdout.close()
    assert demo.wait(50) == 0
    assert demo.stderr.read() == ""


@pytest.mark.parametrize("missing", ["fastapi", "httpx", "uvicorn"])
def test_without_the_extra_it_says_what_to_type(missing: str, tmp_path: Path) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from evento.cli import main; sys.exit(main(['demo']))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"evento: the demo needs {missing}, which is not installed: pip install 'evento-framework[demo]'\n"
    )
    assert list(tmp_path.iterdir()) == []
