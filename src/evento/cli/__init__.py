"""The ``evento`` command.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 failed (one line on standard
error says why), 2 wrong use. Errors show no traceback unless ``--debug`` or ``EVENTO_DEBUG=1`` asks for it.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from evento import __version__
from evento.cli.arguments import add_debug
from evento.cli.bundles import add_bundles
from evento.cli.consumers import add_consumers
from evento.cli.demo import add_demo
from evento.cli.errors import DONE, FAILED, WRONG_USE, CommandFailed, ReaderGone, WrongUse, explain
from evento.cli.events import add_events
from evento.cli.output import discard_output, note
from evento.cli.run import add_run
from evento.cli.server import add_server
from evento.cli.store import add_store
from evento.cli.token import add_token
from evento.errors import EventoError

__all__ = ["main"]

_EXPECTED = (CommandFailed, EventoError, OSError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``evento`` command with ``argv`` (default: the process's) and return its exit code."""
    code = DONE
    try:
        code = _run(_parser().parse_args(argv))
    except SystemExit as end:  # argparse has said all: --help, --version or wrong use
        code = end.code if isinstance(end.code, int) else FAILED
    except ReaderGone:
        pass
    return _flushed(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evento",
        description="Reactive, event-driven commands and queries (RECQ) for Python.",
        epilog="exit codes: 0 done, 1 failed (one line says why), 2 wrong use\n"
        "help on a verb: evento events list --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"evento {__version__}")
    add_debug(parser)
    parser.set_defaults(parser=parser)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    add_demo(verbs)
    add_run(verbs)
    add_events(verbs)
    add_store(verbs)
    add_consumers(verbs)
    add_server(verbs)
    add_token(verbs)
    add_bundles(verbs)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    run = getattr(arguments, "run", None)
    if run is None:
        arguments.parser.print_help(sys.stderr)
        return WRONG_USE
    try:
        code: int = run(arguments)
    except WrongUse as error:
        arguments.parser.error(str(error))
    except KeyboardInterrupt:
        note("evento: interrupted")
        return FAILED
    except ReaderGone:
        raise
    except Exception as error:  # the last place to say it in one line
        _report(error, debug=_debug(arguments))
        return FAILED
    return code


def _debug(arguments: argparse.Namespace) -> bool:
    return bool(getattr(arguments, "debug", False)) or os.environ.get("EVENTO_DEBUG", "") not in ("", "0")


def _report(error: Exception, *, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    if isinstance(error, _EXPECTED):
        note(f"evento: {explain(error)}")
    else:
        note(f"evento: unexpected error, {explain(error)} (--debug shows where)")


def _flushed(code: int) -> int:
    # Python flushes at exit as well, but would tell the user of a closed pipe there.
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
    except OSError as error:
        note(f"evento: the output cannot be written: {explain(error)}")
        discard_output()
        return FAILED
    return code
