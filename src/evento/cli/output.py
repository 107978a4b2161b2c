"""What the terminal prints: text for people, JSON for programs, and progress while something long runs."""

from __future__ import annotations

import io
import os
import select
import sys
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from evento.cli.errors import ReaderGone
from evento.messages import from_micros

__all__ = ["Output", "Progress", "note", "printable", "rfc3339"]


class Output:
    """Standard output. :class:`ReaderGone` tells that nobody reads it any more."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self._stream = sys.stdout
        if isinstance(self._stream, io.TextIOWrapper):
            # JSON is UTF-8 whatever the terminal's encoding; text must not fail for a character that it lacks.
            self._stream.reconfigure(encoding="utf-8" if json else None, errors="backslashreplace")

    @property
    def is_terminal(self) -> bool:
        """Whether a person reads along."""
        return self._stream.isatty()

    def line(self, line: str = "") -> None:
        """Print a line of text."""
        try:
            self._stream.write(f"{line}\n")
        except BrokenPipeError:
            raise ReaderGone from None

    def object(self, value: Any) -> None:
        """Print a value as one line of JSON."""
        self.line(msgspec.json.encode(value).decode())

    def facts(self, facts: Sequence[tuple[str, str]]) -> None:
        """Print names and values below each other."""
        width = max(len(name) for name, _ in facts)
        for name, value in facts:
            self.line(f"{name:<{width}}  {value}".rstrip())

    def flush(self) -> None:
        """Bring what was printed to its reader."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            raise ReaderGone from None

    def check_reader(self) -> None:
        """Raise :class:`ReaderGone` when the reader of a pipe has left although nothing was printed lately."""
        try:
            poll = select.poll()
            poll.register(self._stream.fileno(), 0)
        except (AttributeError, OSError, ValueError):  # no poll() on this system, or not a real file
            return
        if any(happened & select.POLLERR for _, happened in poll.poll(0)):
            raise ReaderGone


class Progress:
    """A progress line on standard error: rewritten in place on a terminal, else a new line every few seconds."""

    def __init__(self, what: str, *, every: float = 5.0) -> None:
        self._what = what
        self._terminal = sys.stderr.isatty()
        self._pause = 0.1 if self._terminal else every
        self._next = time.monotonic() + self._pause
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        """Tell how far it is; cheap enough to be called often."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._pause
        share = f" ({100 * done // total} %)" if total else ""
        line = f"{self._what}: {done:,} of {total:,} events{share}"
        print(f"\r{line}\x1b[K" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr)
        sys.stderr.flush()
        self._shown = True

    def close(self) -> None:
        """Take the line off the terminal again."""
        if self._shown and self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def note(line: str) -> None:
    """Print a line for people on standard error, where it does not mix with results."""
    print(printable(line), file=sys.stderr, flush=True)


def rfc3339(micros: int) -> str:
    """Return microseconds since 1970 as RFC 3339 text: UTC with Z, always six decimals."""
    try:
        return from_micros(micros).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except OverflowError:  # of a damaged row: the number is all that can be said
        return str(micros)


def printable(text: str) -> str:
    """Return ``text`` with control characters escaped: what was stored must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def counted(amount: int, noun: str) -> str:
    """Return an amount with its noun, as in ``1 event`` and ``2,000 events``."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def discard_output() -> None:
    """Send what is still buffered for a reader that has left to nowhere, so that Python's exit stays quiet."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
