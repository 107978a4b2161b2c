"""The README tells the truth: its synopsis runs as it is."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def synopsis() -> str:
    found = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def run(folder: Path) -> str:
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
    first = run(tmp_path)

    assert "AccountOpenedEvent" in first
    assert "ACC_1" in first
    assert run(tmp_path) == first


def test_the_readme_links_to_files_that_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / "README.md").read_text())

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
