"""Becomes another program that the system kills when its parent dies: ``die_with_parent.py PARENT PROGRAM ...``.

Run as a script of its own, because what must happen between fork and exec must not run in a process with threads. On
Linux the kernel does the killing (``PR_SET_PDEATHSIG``); elsewhere the program outlives a parent that was killed.
"""

from __future__ import annotations

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, program: list[str]) -> None:
    """Arrange the end, then become ``program``."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel knew
            sys.exit(1)
    os.execv(program[0], program)  # noqa: S606  (there must be no process in between)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
