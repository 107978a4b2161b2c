"""Positions as ranges."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["as_ranges"]


def as_ranges(positions: Iterable[int]) -> list[tuple[int, int]]:
    """Return positions as ranges of neighbours, both ends inclusive."""
    ranges: list[tuple[int, int]] = []
    for position in sorted(positions):
        if ranges and ranges[-1][1] == position - 1:
            ranges[-1] = (ranges[-1][0], position)
        else:
            ranges.append((position, position))
    return ranges
