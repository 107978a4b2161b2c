"""The application of the tutorial, put together in an empty folder as a newcomer does it."""

from pathlib import Path

import pytest
from documents import DOCS, Block, blocks
from tutorial_folder import write

CHAPTERS = (
    "index",
    "payloads",
    "aggregate",
    "read-model",
    "bundle",
    "web",
    "tests",
    "observer",
    "saga",
    "sequence",
    "realtime",
)
LAST = "living"
"""The last chapter changes the application beyond what the example is."""


def chapters(*names: str) -> list[Block]:
    return [block for name in names for block in blocks(DOCS / "tutorial" / f"{name}.md")]


@pytest.fixture(scope="session")
def steps() -> list[Block]:
    """All blocks of the tutorial, in their order."""
    return chapters(*CHAPTERS, LAST)


@pytest.fixture(scope="session")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the application as the example has it, where nothing has been run."""
    folder = tmp_path_factory.mktemp("todo")
    for step in chapters(*CHAPTERS):
        write(folder, step)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, steps: list[Block]) -> Path:
    """A folder with all that the tutorial says, where nothing has been run."""
    folder = tmp_path_factory.mktemp("finished")
    for step in steps:
        write(folder, step)
    return folder
