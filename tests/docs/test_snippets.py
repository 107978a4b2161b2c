"""Every page with Python runs: its blocks make one script, which prints what the page says and passes mypy.

A block that is titled "raises X" shows a mistake: after the blocks before it, it must end with that error.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from documents import DOCS, ROOT, Block, blocks
from mypy import api
from tutorial_folder import environment

GUIDE = DOCS / "testing.md"  # a file for pytest: tests/testing/test_guide.py runs it
PAGES = [
    page
    for page in sorted(DOCS.rglob("*.md"))
    if page != GUIDE and page.parent.name not in {"tutorial", "adr"} and "```python" in page.read_text()
]


def name_of(page: Path) -> str:
    return "page_" + "_".join(page.relative_to(DOCS).with_suffix("").parts).replace("-", "_")


def is_mistake(block: Block) -> bool:
    return block.title.startswith("raises ")


def script_of(page: Path) -> str:
    return "\n\n".join(block.text for block in blocks(page) if block.language == "python" and not is_mistake(block))


MISTAKES = [block for page in PAGES for block in blocks(page) if is_mistake(block)]


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "page.py").write_text(script)
    return subprocess.run(
        [sys.executable, "page.py"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_prints_what_it_says(page: Path, tmp_path: Path) -> None:
    done = run(script_of(page), tmp_path)
    expected = "".join(block.text for block in blocks(page) if block.title == "prints")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == expected


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_a_mistake_is_refused(mistake: Block, tmp_path: Path) -> None:
    before = [
        block.text
        for block in blocks(mistake.document)
        if block.language == "python" and block.line < mistake.line and not is_mistake(block)
    ]
    done = run("\n\n".join([*before, mistake.text]), tmp_path)

    error = mistake.title.removeprefix("raises ")
    assert done.returncode == 1
    assert f"\nevento.errors.{error}: " in done.stderr, done.stderr


@pytest.mark.timeout(300)
def test_mypy_finds_nothing_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for page in PAGES:
        (tmp_path / f"{name_of(page)}.py").write_text(script_of(page))
    output, errors, code = api.run(["--strict", "--cache-dir", str(ROOT / ".mypy_cache"), str(tmp_path)])

    assert (code, errors) == (0, ""), output
