"""``evento run``: run a bundle until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import logging
import os
import signal
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from evento.cli.arguments import Verbs, add_verb, seconds, text
from evento.cli.cluster import add_token_file, given_token
from evento.cli.errors import DONE, CommandFailed, explain, where
from evento.cli.loops import run_serving
from evento.cli.output import note
from evento.errors import EventoError

if TYPE_CHECKING:
    from evento.bundle import EventoBundle

__all__ = ["Target", "add_run"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Target(NamedTuple):
    """``MODULE:BUNDLE``: where the bundle is."""

    module: str
    attribute: str

    def __str__(self) -> str:
        return f"{self.module}:{self.attribute}"

    @classmethod
    def parse(cls, value: str) -> Target:
        """Read ``shop.app:bundle``; for argparse."""
        module, colon, attribute = value.partition(":")
        if "/" in module or module.endswith(".py"):
            dotted = module.removesuffix(".py").strip("./").replace("/", ".")
            raise argparse.ArgumentTypeError(f"{value!r} names a file: write {dotted}:{attribute or 'bundle'}")
        if not colon or not _is_dotted(module) or not _is_dotted(attribute):
            raise argparse.ArgumentTypeError(f"{value!r} is not MODULE:BUNDLE: write for example shop.app:bundle")
        return cls(module, attribute)


class _Place(NamedTuple):
    """Where the bundle is to run, as the command line says; ``start_timeout`` None: wait for ever."""

    server: str | None
    token: str | None
    start_timeout: float | None

    def give(self, bundle: EventoBundle) -> None:
        """Tell the bundle."""
        if self.server is not None:
            bundle.server = self.server
        if self.token is not None:
            bundle.token = self.token
        bundle.start_timeout = self.start_timeout


def add_run(verbs: Verbs) -> None:
    """Declare ``evento run``."""
    run = add_verb(
        verbs,
        "run",
        _run,
        summary="run a bundle until SIGTERM or Ctrl-C",
        detail="Import MODULE (the current folder is searched too) and run its BUNDLE, an EventoBundle or a function "
        "without parameters (def or async def) that returns one, until SIGTERM or Ctrl-C. Then it stops gracefully: "
        "consumers first, then running handlers are awaited. A second signal stops at once. In a cluster it waits for "
        "a server for as long as it takes, and says so.",
        example="evento run shop.app:bundle --server embedded:shop.db",
    )
    run.add_argument("target", type=Target.parse, metavar="MODULE:BUNDLE", help="such as shop.app:bundle")
    run.add_argument(
        "--server",
        type=text,
        metavar="URL",
        help="embedded:PATH, embedded: (in memory) or nats://HOST:3030 of Evento Servers (several with commas); "
        "default: what the bundle says, else $EVENTO_SERVER",
    )
    add_token_file(run, whose="the bundle's")
    run.add_argument(
        "--start-timeout",
        type=seconds,
        metavar="SECONDS",
        help="give up when no server has answered after so long (default: wait for ever)",
    )


def _run(arguments: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    token = given_token(arguments) if arguments.token_file is not None else None
    found = _find(arguments.target)
    place = _Place(arguments.server, token, arguments.start_timeout)
    run_serving(_serve(arguments.target, found, place))
    return DONE


def _find(target: Target) -> Any:
    """Import the module and return what the target names."""
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    found: Any = _import(target.module)
    module = found
    for name in target.attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise CommandFailed(f"{target.module} has no {target.attribute!r}{_candidates(module)}") from None
    return found


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise CommandFailed(f"there is no module {name}, neither in {os.getcwd()} nor installed") from None
        raise _not_imported(name, error) from error
    except Exception as error:
        raise _not_imported(name, error) from error
    except SystemExit as end:
        raise CommandFailed(f"{name} could not be imported: it called sys.exit({end.code!r})") from end


def _not_imported(name: str, error: Exception) -> CommandFailed:
    why, place = explain(error), where(error)
    return CommandFailed(f"{name} could not be imported: {why}" + ("" if place in why else f" ({place})"))


def _candidates(module: ModuleType) -> str:
    from evento.bundle import EventoBundle

    names = [name for name, value in vars(module).items() if isinstance(value, EventoBundle)]
    return f"; its bundles are: {', '.join(names)}" if names else ""


async def _serve(target: Target, found: Any, place: _Place) -> None:
    signalled = asyncio.Event()
    _on_signals(signalled)
    try:
        bundle = await _made(target, found)
        place.give(bundle)
        if not await _started(target, bundle, signalled):
            return
        note(f"{target} runs; Ctrl-C or SIGTERM stops it")
        try:
            await signalled.wait()
            note(f"{target} is stopping")
        finally:
            await bundle.stop()
    except asyncio.CancelledError:
        raise CommandFailed(f"{target} was stopped at once by a second signal: running handlers were cut off") from None


def _on_signals(signalled: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  (a coroutine that runs is in a task)

    def received() -> None:
        if signalled.is_set():
            task.cancel()
        signalled.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, received)


async def _made(target: Target, found: Any) -> EventoBundle:
    """Return the bundle that was found, or that the function which was found makes."""
    from evento.bundle import EventoBundle

    if isinstance(found, EventoBundle):
        return found
    if not callable(found):
        raise CommandFailed(f"{target} is a {type(found).__name__}: it must be an EventoBundle or a function for one")
    if missing := _mandatory(found):
        raise CommandFailed(
            f"{target} cannot be called without {', '.join(missing)}: it must be an EventoBundle or a function without "
            "parameters that returns one"
        )
    made = await _called(target, found)
    if not isinstance(made, EventoBundle):
        raise CommandFailed(f"{target}() returned a {type(made).__name__}: it must return an EventoBundle")
    return made


def _mandatory(function: Callable[..., Any]) -> list[str]:
    """Return the names of the parameters that have no default."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # not written in Python: its call will tell
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is each.empty and each.kind not in optional]


async def _called(target: Target, function: Callable[[], Any]) -> Any:
    try:
        made = function()
        return await made if inspect.isawaitable(made) else made
    except Exception as error:
        raise CommandFailed(f"{target}() failed: {explain(error)} ({where(error)})") from error


async def _started(target: Target, bundle: EventoBundle, signalled: asyncio.Event) -> bool:
    """Start the bundle; False when a signal came first."""
    starting = asyncio.ensure_future(bundle.start())
    waiting = asyncio.ensure_future(signalled.wait())
    try:
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
    if starting.cancelled():
        return False
    error = starting.exception()
    if isinstance(error, EventoError):
        raise CommandFailed(f"{target} could not start: {explain(error)}") from error
    if isinstance(error, Exception):
        raise CommandFailed(f"{target} could not start: {explain(error)} ({where(error)})") from error
    starting.result()
    return True


def _is_dotted(value: str) -> bool:
    return all(part.isidentifier() for part in value.split("."))
