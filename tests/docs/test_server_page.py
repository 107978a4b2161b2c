"""The page on the server has every setting with its default and meaning, and the metrics and files that there are."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
from documents import DOCS
from running_server import free_settings, token_for

from evento.server.server import EventoServer
from evento.server.settings import GROUPS, Key, keys

PAGE = DOCS / "server.md"


def rows() -> dict[str, tuple[str, str]]:
    settings = PAGE.read_text().partition("\n## Settings\n")[2].partition("\n## ")[0]
    return {
        name: (default, meaning)
        for name, default, meaning in re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", settings, re.M)
    }


def test_it_has_every_setting_and_no_other() -> None:
    assert list(rows()) == [key.name for group in GROUPS for key in keys() if key.group == group]


@pytest.mark.parametrize("key", list(keys()), ids=lambda key: key.name)
def test_a_setting_is_described_as_the_help_describes_it(key: Key) -> None:
    default, meaning = rows()[key.name]

    assert default.strip("`") == (key.absent or key.shown_default or "-")
    assert meaning.replace("`", "") == key.sentence + (" (a secret: no option)" if key.secret else "")


async def test_it_has_every_file_of_the_data_folder(tmp_path: Path) -> None:
    table = PAGE.read_text().partition("\n## The data folder\n")[2].partition("\n## ")[0]
    told = [name for row in re.findall(r"^\| (`.+?) \|", table, re.M) for name in re.findall(r"`([^`]+)`", row)]
    async with EventoServer(free_settings(tmp_path)) as server:
        token_for(server, "orders")
        files = [file.name for file in tmp_path.iterdir()]
    assert [name for name in files if not any(fnmatch(name, pattern) for pattern in told)] == []
