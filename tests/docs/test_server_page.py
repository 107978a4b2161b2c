"""The page on the server has every setting with its default and meaning, and the metrics and files that there are."""

import re

import pytest
from documents import DOCS

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
