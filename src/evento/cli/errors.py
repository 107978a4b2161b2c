"""How the terminal's errors end: one line on standard error and an exit code."""

from __future__ import annotations

import traceback
from pathlib import Path
from sysconfig import get_path
from typing import Final

from evento.errors import EventoError

__all__ = ["DONE", "FAILED", "WRONG_USE", "CommandFailed", "ReaderGone", "WrongUse", "explain", "where"]

DONE: Final = 0
FAILED: Final = 1
WRONG_USE: Final = 2

_EVENTO = f"{Path(__file__).parents[1]}/"


class CommandFailed(Exception):
    """The command cannot be done; the message says why. Exit code 1."""


class WrongUse(Exception):
    """The command line makes no sense; the message says what to type. Exit code 2."""


class ReaderGone(Exception):
    """Whoever read the standard output has closed it, as ``head`` does: stop quietly."""


def explain(error: BaseException) -> str:
    """Return one line that says why ``error`` ended the command."""
    text = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if isinstance(error, (CommandFailed, EventoError)):
        return text or type(error).__name__
    # Names alone tell little: KeyError('x') has the text 'x'.
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def where(error: BaseException) -> str:
    """Return ``file:line`` of the user's innermost line of code that led to ``error``; "" when it is unknown."""
    frames = traceback.extract_tb(error.__traceback__)
    users = [frame for frame in frames if _is_users(frame.filename)] or frames
    return f"{users[-1].filename}:{users[-1].lineno}" if users else ""


def _is_users(filename: str) -> bool:
    installed = (get_path("stdlib"), _EVENTO, "<frozen ")
    return not filename.startswith(installed) and "site-packages" not in filename
