"""What the documents hold: fenced blocks, headings and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_BLOCK = re.compile(r"^```(\w*)(?: title=\"([^\"]*)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)")
_HEADING = re.compile(r"^#+ (.+?)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; ``line`` is that of its first line of text."""

    document: Path
    line: int
    language: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks(document: Path) -> list[Block]:
    """Return the fenced blocks of a document, in their order."""
    text = document.read_text()
    assert text.count("\n```") % 2 == 0, f"{document}: a block is not closed"
    return [
        Block(document, text.count("\n", 0, found.start(3)) + 1, found[1], found[2] or "", found[3])
        for found in _BLOCK.finditer(text)
    ]


def prose(document: Path) -> str:
    """Return a document without its blocks."""
    return _BLOCK.sub("", document.read_text())


def links(document: Path) -> Iterator[tuple[str, str]]:
    """Yield the links within the repository: the path (empty: the same document) and the anchor."""
    for found in _LINK.finditer(prose(document)):
        yield found[1], found[2] or ""


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as the site makes them."""
    return {_slug(heading) for heading in _HEADING.findall(prose(document))}


def _slug(heading: str) -> str:
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())
