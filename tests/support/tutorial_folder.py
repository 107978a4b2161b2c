"""Following the tutorial: its blocks become files, its commands run as a newcomer's do."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from documents import Block


def write(folder: Path, block: Block) -> None:
    """Write a block to the file that it names, to the end of it, or as a change to it; others are no files."""
    if not block.title:
        return
    name, continued, _ = block.title.partition(" (continued)")
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    changes = continued or block.language == "diff"
    assert file.exists() == bool(changes), f"{block}: {name} is begun twice, or changed before it is begun"
    if block.language == "diff":
        file.write_text(_changed(file.read_text(), block))
    else:
        file.write_text(f"{file.read_text()}\n{block.text}" if continued else block.text)


def _changed(text: str, block: Block) -> str:
    """Apply the changes of a block: its parts, between lines of @@, each fit one place."""
    for part in block.text.split("@@\n"):
        lines = [(line[:1] or " ", line[1:]) for line in part.splitlines()]
        assert {sign for sign, _ in lines} <= {" ", "-", "+"}, f"{block}: neither ' ', '-' nor '+'"
        old = "".join(f"{line}\n" for sign, line in lines if sign != "+")
        new = "".join(f"{line}\n" for sign, line in lines if sign != "-")
        assert text.count(old) == 1, f"{block}: this fits {text.count(old)} places:\n{old}"
        text = text.replace(old, new)
    return text


def environment() -> Mapping[str, str]:
    """The environment of a newcomer: warnings are errors, and nothing is said about Evento."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EVENTO_", "TODOLIST_"))}
    folder = str(Path(sys.executable).parent)
    return {**kept, "PATH": f"{folder}{os.pathsep}{kept.get('PATH', '')}", "PYTHONWARNINGS": "error", "NO_COLOR": "1"}
