"""Where a process of a cluster spends its processor time: by part of Evento, and beside it.

A timer interrupts the process after each millisecond of processor time and notes in which of Evento's packages it is:
the innermost frame says so, and what that calls in C counts for it. The timer costs a few percent, so read shares here
and rates elsewhere.
"""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from types import FrameType

import evento

__all__ = ["Sampling"]

_EVENTO = Path(evento.__file__).parent
_HERE = Path(__file__).parent
_DEEPER = {"gateway", "state_store", "server"}
"""Packages that are told apart by the packages within."""


class Sampling:
    """Counts samples from :meth:`start` to :meth:`stop`."""

    def __init__(self) -> None:
        self._samples: Counter[str] = Counter()
        self._parts: dict[str, str] = {}

    def start(self) -> None:
        """Begin anew."""
        self._samples.clear()
        signal.signal(signal.SIGPROF, self._note)
        signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)

    def stop(self) -> dict[str, int]:
        """End, and return the samples of each part."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        return dict(self._samples)

    def _note(self, number: int, frame: FrameType | None) -> None:
        while frame is not None:
            file = frame.f_code.co_filename
            part = self._parts.get(file)
            if part is None:
                part = self._parts[file] = _part(Path(file))
            if part:
                self._samples[part] += 1
                return
            frame = frame.f_back
        self._samples["event loop"] += 1


def _part(file: Path) -> str:
    """Return the part that a file belongs to; "" for what works for its caller."""
    if file.is_relative_to(_EVENTO):
        parts = file.relative_to(_EVENTO).parts
        return "/".join(parts[:2]) if parts[0] in _DEEPER and len(parts) > 2 else parts[0].removesuffix(".py")
    if file.parent == _HERE and file.name not in ("roles.py", "commands.py"):
        return "the benchmark's own"
    return ""
