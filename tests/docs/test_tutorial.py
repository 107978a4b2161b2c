"""The tutorial leads from an empty folder to the application, and each command prints what the text says."""

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from documents import ROOT, Block
from mypy import api
from tutorial_folder import environment, write

EXAMPLE = ROOT / "src/evento/examples/todolist"
OWN = ("__init__.py", "cluster.py", "demo.py", "errors.py", "script.py", "split.py", "traffic.py", "web.py")
"""The files of the example that are not those of the tutorial: a shorter web layer, one process, no demonstration."""

SAME = sorted(name for file in EXAMPLE.rglob("*.py") if (name := str(file.relative_to(EXAMPLE))) not in OWN)

SETTING_UP = ("mkdir", "python3", "pip")
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
VARYING = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)?|in \d+\.\d+s")


@pytest.mark.parametrize("name", SAME)
def test_the_files_are_those_of_the_example(tutorial: Path, name: str) -> None:
    example = (EXAMPLE / name).read_text().replace("evento.examples.todolist", "todolist")

    assert lines(tutorial / "todolist" / name) == [line for line in example.splitlines() if line]


def lines(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if line]


@pytest.mark.timeout(300)
def test_mypy_finds_nothing_wrong(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    output, errors, code = api.run(["--strict", "--cache-dir", str(ROOT / ".mypy_cache"), "todolist", "tests"])

    assert (code, errors) == (0, ""), output


@pytest.mark.timeout(180)
def test_who_follows_it_sees_what_it_says(tmp_path: Path, steps: list[Block]) -> None:
    with Newcomer(tmp_path) as newcomer:
        for step in steps:
            write(tmp_path, step)
            if step.language == "console":
                newcomer.follow(step)


def test_its_web_layer_answers_as_that_of_the_example(tutorial: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    with (
        served(tutorial, "todolist.app:create_app") as (_, own),
        served(tmp_path / "theirs", "evento.examples.todolist.app:create_app") as (_, theirs),
    ):
        assert conversation(own) == conversation(theirs)


def conversation(url: str) -> list[tuple[str, int, object]]:
    """Do everything once; return what was answered, without what differs from run to run and texts about input."""
    answers: list[tuple[str, int, object]] = []

    with httpx.Client(base_url=url, trust_env=False, headers={"Authorization": "ann"}, timeout=30) as http:

        def ask(method: str, path: str, body: dict[str, str] | None = None) -> str:
            answer = http.request(method, path, json=body)
            shown = answer.json() if answer.content else None
            if isinstance(shown, dict) and answer.status_code >= 400:
                shown = shown.get("message") if answer.status_code != 422 else None
            identifier = str(shown.get("identifier")) if isinstance(shown, dict) else ""
            answers.append((method, answer.status_code, json.loads(masked(json.dumps(shown)))))
            return identifier

        path = "/todo-list/" + ask("POST", "/todo-list/", {"name": "Groceries"})
        todos = [f"{path}/todo/" + ask("POST", f"{path}/todo/", {"content": name}) for name in "ABCDE"]
        ask("POST", f"{path}/todo/", {"content": "F"})
        ask("POST", f"{path}/todo/", {"content": "  "})
        ask("POST", "/todo-list/", {})
        for method in ("PUT", "PUT", "DELETE"):
            ask(method, todos[0])
        ask("DELETE", path)
        ask("DELETE", todos[1])
        ask("GET", path)
        ask("GET", "/todo-list/?nameLike=roc")
        ask("GET", "/todo-list/?page=1")
        ask("GET", "/todo-list/?page=-1")
        other = "/todo-list/" + ask("POST", "/todo-list/", {"name": "Holiday"})
        for method in ("DELETE", "DELETE", "GET"):
            ask(method, other)
        ask("PUT", "/todo-list/TDLS_none/todo/TODO_none")
    return answers


def masked(text: str) -> str:
    return VARYING.sub("~", UUID.sub("~", text))


@contextmanager
def served(folder: Path, app: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve an application from a folder on a free port; Ctrl-C at the end must end it well."""
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--factory", app, "--port", "0"],
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    said = ""
    try:
        assert process.stderr is not None
        while (found := re.search(r"running on (http://[\d.:]+)", said)) is None:
            line = process.stderr.readline()
            assert line, said
            said += line
        yield process, found[1]
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=30)[1]
        assert "Application shutdown complete" in rest, said + rest
    finally:
        process.kill()
        process.communicate()


class Newcomer:
    """Types the commands, and reads what they print; identifiers are taken from the last answer, as the text says."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own: dict[str, str] = {}
        self._serving = ExitStack()
        self._url = ""

    def __enter__(self) -> "Newcomer":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._serving.close()

    def follow(self, block: Block) -> None:
        """Run the commands of a block, and compare what they print."""
        for found in re.finditer(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE):
            command, expected = found[1], found[2]
            if command.startswith(SETTING_UP):
                continue
            printed = self._run(UUID.sub(lambda told: self._own[told[0]], command))
            told, own = UUID.findall(expected), UUID.findall(printed)
            assert masked(printed).split() == masked(expected).split(), f"{block}: {command} printed\n{printed}"
            for id_in_text, id_here in zip(told, own, strict=True):
                assert self._own.setdefault(id_in_text, id_here) == id_here, f"{block}: {command}\n{printed}"

    def _run(self, command: str) -> str:
        words = shlex.split(command.replace("http://localhost:8000", self._url))
        match words[0]:
            case "uvicorn":
                self._serving.close()  # Ctrl-C, if it runs
                self._url = self._serving.enter_context(served(self._folder, "todolist.app:create_app"))[1]
                return ""
            case "curl":
                return self._curl(words)
            case "python":
                words = [sys.executable, *words[1:]]
            case _:
                words = [sys.executable, "-m", *words]
        done = subprocess.run(
            words,
            cwd=self._folder,
            env={**environment(), "PYTHONUNBUFFERED": "1"},  # so that output and warnings come in their order
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}"
        return done.stdout

    def _curl(self, words: list[str]) -> str:
        method, headers, body, url, piped = "GET", {}, None, "", []
        rest = iter(words[1:])
        for word in rest:
            match word:
                case "-s":
                    pass
                case "-X":
                    method = next(rest)
                case "-H":
                    name, _, value = next(rest).partition(": ")
                    headers[name] = value
                case "-d":
                    body = next(rest)
                case "|":
                    piped = list(rest)
                case _:
                    url = word.replace("localhost:8000", self._url)
        answer = httpx.request(method, url, headers=headers, content=body, trust_env=False, timeout=30)
        if piped == ["python", "-m", "json.tool"]:
            return json.dumps(answer.json(), indent=4) + "\n"
        assert not piped
        return answer.text
