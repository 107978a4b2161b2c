"""``evento server``: what bundles in many processes share, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from evento.cli.arguments import Verbs, add_verb
from evento.cli.errors import DONE, FAILED, CommandFailed, explain
from evento.cli.loops import run_serving
from evento.cli.output import Output, note
from evento.cli.server_settings import needing_extra, settings_of
from evento.errors import EventoError

if TYPE_CHECKING:
    from evento.server import ServerSettings
    from evento.server.server import EventoServer

__all__ = ["add_server"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SAME_SECONDS = 0.5
"""Signals that come so shortly after the first are the first: timeout(1) and some supervisors send several at once."""
_DETAIL = (
    "Run a server: bundles in many processes reach each other through it and share one event store. SIGTERM and Ctrl-C "
    "drain it: no new request is taken, and those under way are answered. A second signal stops at once.",
    "Each setting may stand on the command line, in the environment (EVENTO_ES_ and its name in capitals) or in the "
    "table [es] of the TOML file; the first of these that has it holds. Secrets have no option: "
    "EVENTO_ES_METRICS_TOKEN, EVENTO_ES_NATS_PASSWORD, EVENTO_ES_CLUSTER_SECRET.",
)


def add_server(verbs: Verbs) -> None:
    """Declare ``evento server``."""
    server = add_verb(
        verbs,
        "server",
        _run,
        summary="run an Evento Server until SIGTERM or Ctrl-C",
        detail="\n\n".join(textwrap.fill(paragraph, width=80) for paragraph in _DETAIL),
        example="evento server --store sqlite:shop.db",
    )
    server.usage = "evento server [--config FILE] [--http HOST:PORT] [--gateway HOST:PORT] [--store URL] [OPTION ...]"
    server.add_argument("--config", type=Path, metavar="FILE", help="the TOML file [$EVENTO_ES_CONFIG]")
    instead = server.add_argument_group("instead of serving").add_mutually_exclusive_group()
    instead.add_argument("--check", action="store_true", help="check all that a start needs, and print a line for each")
    instead.add_argument("--print-config", action="store_true", help="print a TOML file with every setting")
    instead.add_argument(
        "--print-permissions", action="store_true", help="print the users that a NATS of your own (--nats) must know"
    )
    _add_settings(server)


def _add_settings(server: argparse.ArgumentParser) -> None:
    from evento.server.settings import GROUPS, keys
    from evento.server.values import FLAG

    groups = {name: server.add_argument_group(name) for name in GROUPS}
    for key in keys():
        if key.secret:
            continue
        default = key.absent or key.shown_default
        text = f"{key.sentence}{f' (default: {default})' if default else ''}".replace("%", "%%")
        if key.kind is FLAG:
            groups[key.group].add_argument(key.option, action="store_const", const="true", help=text)
        else:
            groups[key.group].add_argument(key.option, metavar=key.kind.metavar, help=text)


def _run(arguments: argparse.Namespace) -> int:
    from evento.server.config import sample
    from evento.server.settings import keys

    if arguments.print_config:
        Output().line(sample().rstrip("\n"))
        return DONE
    given = {key.name: value for key in keys() if (value := getattr(arguments, key.name, None)) is not None}
    settings = settings_of(given, environ=os.environ, file=arguments.config)
    if arguments.print_permissions:
        Output().line(_permissions(settings))
        return DONE
    if arguments.check:
        return _check(settings)
    with needing_extra():
        from evento.server.logs import configure_logs
        from evento.server.server import EventoServer
    configure_logs(level=settings.log_level, format=settings.log_format)
    if settings.nats and settings.log_format == "text":
        note(f"the NATS at {', '.join(settings.nats)} must know these users:\n{_permissions(settings)}")
    run_serving(_serve(lambda: EventoServer(settings)))
    return DONE


def _permissions(settings: ServerSettings) -> str:
    with needing_extra():
        from evento.server.nats_config import required_permissions
        from evento.server.tokens import TokenFile

    return required_permissions(settings, TokenFile(settings.token_file).read() or ())


def _check(settings: ServerSettings) -> int:
    with needing_extra():
        from evento.server.check import check

    output = Output()
    code = DONE
    for finding in run_serving(check(settings)):
        output.line(f"{'ok    ' if finding.fine else 'FAILED'}  {finding.what}: {finding.text}")
        code = code if finding.fine else FAILED
    return code


async def _serve(make: Callable[[], EventoServer]) -> None:
    signals = _Signals()
    try:
        try:
            async with make():
                signals.started = True
                await signals.first.wait()
        except EventoError as error:
            what = "has stopped, but not in order" if signals.started else "could not start"
            raise CommandFailed(f"the server {what}: {explain(error)}") from error
    except asyncio.CancelledError:
        if signals.started:
            raise CommandFailed("the server was stopped at once by a second signal: requests were cut off") from None


class _Signals:
    """SIGTERM and Ctrl-C: the first drains what has started, the second cancels; so does one during the start."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.started = False
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._at = 0.0
        for number in _SIGNALS:
            self._loop.add_signal_handler(number, self._received)

    def _received(self) -> None:
        if not self.first.is_set():
            self._at = self._loop.time()
            self.first.set()
            again = False
        else:
            again = self._loop.time() - self._at > _SAME_SECONDS
        if (again or not self.started) and self._task is not None:
            self._task.cancel()
