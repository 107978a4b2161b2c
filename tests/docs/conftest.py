"""The application of the tutorial, put together in an empty folder as a newcomer does it."""

from pathlib import Path

import pytest
from documents import DOCS, Block, blocks
from tutorial_folder import write

CHAPTERS = ("index", "payloads", "aggregate", "read-model", "bundle", "web", "tests", "living")


@pytest.fixture(scope="session")
def steps() -> list[Block]:
    """All blocks of the tutorial, in their order."""
    return [block for chapter in CHAPTERS for block in blocks(DOCS / "tutorial" / f"{chapter}.md")]


@pytest.fixture(scope="session")
def tutorial(tmp_path_factory: pytest.TempPathFactory, steps: list[Block]) -> Path:
    """A folder with all files of the tutorial, where nothing has been run."""
    folder = tmp_path_factory.mktemp("todo")
    for step in steps:
        write(folder, step)
    return folder
