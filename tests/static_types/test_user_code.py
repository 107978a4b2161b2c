"""What mypy --strict says about code as users write it."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest
from mypy import api

USER_CODE = Path(__file__).with_name("user_code.py.txt")
ROOT = Path(__file__).parents[2]
Marks = dict[int, list[str]]


def expected(source: str) -> Marks:
    marks: Marks = defaultdict(list)
    for number, line in enumerate(source.splitlines(), 1):
        for mark in line.split("  # ")[1:]:
            marks[number].append(mark)
    return marks


def found(output: str) -> Marks:
    marks: Marks = defaultdict(list)
    for line in output.splitlines():
        error = re.match(r".*?user_code\.py:(\d+): error: .*\[([\w-]+)\]$", line)
        revealed = re.match(r".*?user_code\.py:(\d+): note: Revealed type is \"(.*)\"$", line)
        if error:
            marks[int(error[1])].append(f"E: {error[2]}")
        elif revealed:
            marks[int(revealed[1])].append(f"R: {re.sub(r'[a-z_]+[.]', '', revealed[2])}")
        elif ": error:" in line:
            marks[0].append(line)
    return marks


@pytest.mark.timeout(300)
def test_mypy_finds_the_types_and_the_mistakes_of_users(tmp_path: Path) -> None:
    file = tmp_path / "user_code.py"
    file.write_text(USER_CODE.read_text())

    output, errors, _ = api.run(
        ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache"), str(file)]
    )

    assert not errors
    assert found(output) == expected(USER_CODE.read_text())
