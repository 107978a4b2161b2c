"""What the verbs' command lines have in common: how a verb is declared, and what kinds of values options take."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TypeAlias

from evento.messages import to_micros

__all__ = [
    "Run",
    "Verbs",
    "add_debug",
    "add_json",
    "add_verb",
    "add_verb_group",
    "after",
    "count",
    "duration",
    "moment",
    "port",
    "position",
    "seconds",
    "text",
]

Run: TypeAlias = Callable[[argparse.Namespace], int]
"""A verb: takes the parsed command line, returns the exit code."""

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where verbs are added: what ``ArgumentParser.add_subparsers`` returns."""

_MAX_INTEGER = 2**63 - 1
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MOMENT = re.compile(
    r"\d{4}-\d{2}-\d{2}(?P<time>[Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(?P<zone>[Zz]|[+-]\d{2}:\d{2})?)?"
)


def add_verb(verbs: Verbs, name: str, run: Run, *, summary: str, detail: str, example: str) -> argparse.ArgumentParser:
    """Declare a verb; ``summary`` is its line in the list of verbs, ``detail`` and ``example`` are in its own help."""
    verb = verbs.add_parser(
        name,
        help=summary,
        description=detail,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verb.set_defaults(run=run, parser=verb)
    add_debug(verb)
    return verb


def add_verb_group(verbs: Verbs, name: str, *, summary: str) -> Verbs:
    """Declare a word that verbs follow, such as ``events``, and return where to add them."""
    group = verbs.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    group.set_defaults(parser=group)
    add_debug(group)
    return group.add_subparsers(title="verbs", metavar="VERB")


def add_debug(parser: argparse.ArgumentParser) -> None:
    """Declare ``--debug``, which may stand before and after the verb."""
    parser.add_argument(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS,
        help="show the traceback of an error ($EVENTO_DEBUG=1 does too)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")


def text(value: str) -> str:
    """Read a name or id; what no store can hold is refused."""
    if "\0" in value or not _encodable(value):
        raise argparse.ArgumentTypeError(f"{value!r} is not text in UTF-8")
    return value


def position(value: str) -> int:
    """Read the position of an event: a whole number from 1."""
    number = _whole_number(value)
    if not number:
        raise argparse.ArgumentTypeError(f"{value!r} is not an event's position: write a whole number from 1")
    return number


def after(value: str) -> int:
    """Read the position to begin behind: a whole number, 0 for the beginning."""
    number = _whole_number(value)
    if number is None:
        raise argparse.ArgumentTypeError(f"{value!r} is not a position: write a whole number, 0 for the beginning")
    return number


def count(value: str) -> int:
    """Read how many: a whole number from 1."""
    number = _whole_number(value)
    if not number:
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number from 1")
    return number


def port(value: str) -> int:
    """Read a TCP port; 0 lets the system choose a free one."""
    number = _whole_number(value)
    if number is None or number > 65535:
        raise argparse.ArgumentTypeError(f"{value!r} is not a port: write a whole number from 1 to 65535")
    return number


def seconds(value: str) -> float:
    """Read a number of seconds, such as 30 or 0.5."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value) or not float(value):
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of seconds: write 30 or 0.5")
    return float(value)


def moment(value: str) -> int:
    """Read a time (RFC 3339) or a date (its first moment, UTC); return microseconds since 1970."""
    match = _MOMENT.fullmatch(value)
    if match is None:
        raise argparse.ArgumentTypeError(f"{value!r} is not a time: write 2026-01-31 or 2026-01-31T08:30:00Z")
    if match["time"] and not match["zone"]:
        raise argparse.ArgumentTypeError(f"{value!r} has no zone: add Z for UTC, or an offset such as +01:00")
    try:
        parsed = datetime.fromisoformat(value.upper())
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{value!r} is not a time: {error}") from None
    return to_micros(parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc))


def duration(value: str) -> int:
    """Read a duration such as ``365d``; return microseconds."""
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", value)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{value!r} is not a duration: write a whole number and s, m, h, d or w, such as 365d"
        )
    return int(match[1]) * _UNIT_SECONDS[match[2]] * 1_000_000


def _whole_number(value: str) -> int | None:
    # int() alone takes "1_000", " 5" and digits of every script.
    if not re.fullmatch(r"[0-9]{1,19}", value) or int(value) > _MAX_INTEGER:
        return None
    return int(value)


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
