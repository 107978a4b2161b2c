"""Numbers that nobody can guess: an answer is known by the number in its subject, and by nothing else."""

from __future__ import annotations

import os

__all__ = ["Numbers"]

_AT_ONCE = 512
"""Numbers for one question to the operating system, which costs as much as hundreds of them."""


class Numbers:
    """Gives random numbers of 63 bits.

    Who may send to an inbox is not limited: whoever is asked answers, wherever the answer is wanted. So whoever knew
    the number of another's request could answer it.
    """

    def __init__(self) -> None:
        self._left: list[int] = []

    def next(self) -> int:
        """Return another one."""
        if not self._left:
            self._left = memoryview(os.urandom(8 * _AT_ONCE)).cast("Q").tolist()
        return self._left.pop() >> 1
