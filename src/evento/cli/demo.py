"""``evento demo``: the TodoList application, with traffic, from any folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from evento.cli.arguments import Verbs, add_verb, port
from evento.cli.errors import DONE, CommandFailed, ReaderGone
from evento.cli.loops import run_serving
from evento.cli.output import Output

__all__ = ["add_demo"]

_INSTALL = "pip install 'evento-framework[demo]'"


def add_demo(verbs: Verbs) -> None:
    """Declare ``evento demo``."""
    demo = add_verb(
        verbs,
        "demo",
        _demo,
        summary="run the TodoList application with generated traffic",
        detail="Run the TodoList application on an embedded store, with generated traffic, until Ctrl-C. Started "
        f"again it goes on with the same data. It needs: {_INSTALL}",
        example="evento demo --once --data /tmp/evento-demo",
    )
    demo.add_argument("--once", action="store_true", help="run a script of requests, print a summary and end")
    demo.add_argument("--port", type=port, default=8080, metavar="N", help="HTTP port (default: 8080)")
    demo.add_argument(
        "--data", type=Path, default=Path("evento-demo"), metavar="FOLDER", help="its data (default: ./evento-demo)"
    )


def _demo(arguments: argparse.Namespace) -> int:
    try:
        return _run_demo(arguments)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "evento":
            raise
        raise CommandFailed(f"the demo needs {error.name}, which is not installed: {_INSTALL}") from error
    except (BrokenPipeError, ExceptionGroup) as error:
        if _is_broken_pipe(error):
            raise ReaderGone from error
        raise


def _run_demo(arguments: argparse.Namespace) -> int:
    from evento.examples.todolist import demo

    if arguments.once:
        Output().line(str(run_serving(demo.once(arguments.data))))
    else:
        run_serving(demo.serve(arguments.data, arguments.port))
    return DONE


def _is_broken_pipe(error: Exception) -> bool:
    if isinstance(error, ExceptionGroup):
        return error.split(BrokenPipeError)[1] is None
    return isinstance(error, BrokenPipeError)
