"""The site is whole: every page is in the navigation, and every link, also to a heading, leads somewhere."""

import re
from pathlib import Path

import pytest
from documents import DOCS, ROOT, anchors, blocks, links

PAGES = sorted(DOCS.rglob("*.md"))
TEMPLATE = DOCS / "adr/0000-template.md"
LANGUAGES = {"python", "diff", "console", "text", "ini", ""}


def test_the_navigation_has_every_page_once() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2].partition("\n\n")[0]

    assert sorted(re.findall(r"[\w./-]+\.md", navigation)) == sorted(
        str(page.relative_to(DOCS)) for page in PAGES if page != TEMPLATE
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = [
        f"{path}#{anchor}"
        for path, anchor in links(page)
        if not leads_somewhere(page if not path else page.parent / path, anchor)
    ]

    assert broken == []


def leads_somewhere(target: Path, anchor: str) -> bool:
    if not target.resolve().is_relative_to(DOCS) or not target.is_file():
        return False
    return not anchor or anchor in anchors(target)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_blocks_say_what_they_are(page: Path) -> None:
    """So that no Python hides from the tests behind another name."""
    assert {block.language for block in blocks(page)} <= LANGUAGES
