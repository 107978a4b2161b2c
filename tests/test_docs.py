"""The documents tell the truth: the README's synopsis runs as it is, links lead somewhere, named tests exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))


def synopsis() -> str:
    found = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def run_synopsis(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", synopsis()],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_synopsis_has_twelve_lines() -> None:
    assert len([line for line in synopsis().splitlines() if line.strip()]) == 12


def test_the_synopsis_runs_and_a_second_run_gives_the_same_event(tmp_path: Path) -> None:
    first = run_synopsis(tmp_path)

    assert "AccountOpenedEvent" in first
    assert "ACC_1" in first
    assert run_synopsis(tmp_path) == first


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", (ROOT / document).read_text())

    assert [link for link in links if not (ROOT / document).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_tests_exist(document: str) -> None:
    named = re.findall(r"`(tests/[\w/.]+)(?:::(\w+))?`", (ROOT / document).read_text())

    assert [path for path, _ in named if not (ROOT / path).exists()] == []
    assert [test for path, test in named if test and f"def {test}(" not in (ROOT / path).read_text()] == []


def test_every_promise_names_its_tests() -> None:
    promises = re.split(r"\n## (?=\d)", (ROOT / "docs/guarantees.md").read_text())[1:]

    assert [promise.splitlines()[0] for promise in promises if "\nTests: `tests/" not in promise] == []
