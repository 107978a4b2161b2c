"""Following the tutorial: its blocks become files, its commands run as a newcomer's do."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from documents import Block


def write(folder: Path, block: Block) -> None:
    """Write a block to the file that it names, or to the end of it; a block without a name is no file."""
    if not block.title:
        return
    name, continued, _ = block.title.partition(" (continued)")
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    assert file.exists() == bool(continued), f"{block}: {name} is begun twice, or continued before it is begun"
    file.write_text(f"{file.read_text()}\n{block.text}" if continued else block.text)


def environment() -> Mapping[str, str]:
    """The environment of a newcomer: warnings are errors, and nothing is said about Evento."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EVENTO_", "TODOLIST_"))}
    folder = str(Path(sys.executable).parent)
    return {**kept, "PATH": f"{folder}{os.pathsep}{kept.get('PATH', '')}", "PYTHONWARNINGS": "error", "NO_COLOR": "1"}
