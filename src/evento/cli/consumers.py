"""``evento consumers``: where consumers stand, pause and resume, and their dead event queues."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from evento.cli.arguments import Verbs, add_json, add_verb, add_verb_group, after, count, position, text
from evento.cli.consumer_access import Administration, Consumers, open_consumers
from evento.cli.consumer_lines import dead_line, print_dead, print_status, print_statuses, status_line
from evento.cli.errors import DONE, CommandFailed, WrongUse
from evento.cli.locations import add_consumers_option, add_store_options
from evento.cli.output import Output, counted, printable
from evento.consumers import ConsumerId, ConsumerStatus

__all__ = ["add_consumers"]

R = TypeVar("R")
_PAGE = 500


def add_consumers(verbs: Verbs) -> None:
    """Declare ``evento consumers``."""
    group = add_verb_group(verbs, "consumers", summary="show, pause and resume consumers; retry their dead events")
    listing = add_verb(
        group,
        "list",
        _list,
        summary="print where each consumer stands",
        detail="Print where each consumer stands that has its place in the consumer state, or that the running bundles "
        "of a cluster have.",
        example="evento consumers list --store sqlite:shop.db",
    )
    listing.add_argument("--bundle", type=text, metavar="X", help="only the consumers of this bundle")
    _add_common(listing)
    show = add_verb(
        group,
        "show",
        _show,
        summary="print all that is known of a consumer",
        detail="Print all that is known of a consumer, its last error included.",
        example="evento consumers show OrderProjector --store sqlite:shop.db",
    )
    _add_consumer(show)
    for name, run, what in (
        ("pause", _pause, "let a consumer handle no further event until it is resumed"),
        ("resume", _resume, "let a consumer go on that was paused or has paused itself"),
    ):
        verb = add_verb(
            group,
            name,
            run,
            summary=what,
            detail=f"{what[0].upper()}{what[1:]}. A running bundle follows within about a second.",
            example=f"evento consumers {name} OrderProjector --store sqlite:shop.db",
        )
        _add_consumer(verb)
    dead = add_verb_group(group, "dead", summary="list, retry and discard dead events")
    _add_dead_list(dead)
    for place, words in ((dead, "dead "), (group, "")):
        _add_retry(place, words)
        _add_discard(place, words)


def _add_dead_list(verbs: Verbs) -> None:
    verb = add_verb(
        verbs,
        "list",
        _dead_list,
        summary="print dead events, and those that wait behind them",
        detail="Print the dead events of a consumer that match all given conditions, and those that wait behind them, "
        "in their order.",
        example="evento consumers dead list OrderProjector --store sqlite:shop.db",
    )
    _add_consumer(verb)
    _add_conditions(verb)
    which = verb.add_mutually_exclusive_group()
    which.add_argument("--dead", action="store_true", help="only events that have failed")
    which.add_argument("--waiting", action="store_true", help="only events that wait behind a dead one")
    verb.add_argument("--after", type=after, default=0, metavar="N", help="only positions beyond N")
    verb.add_argument("--limit", type=count, default=100, metavar="N", help="at most N events (default: 100)")


def _add_retry(verbs: Verbs, words: str) -> None:
    verb = add_verb(
        verbs,
        "retry",
        _retry,
        summary="handle dead events again",
        detail="Mark dead events to be handled again: in their order, each followed by those that wait behind it. "
        "A running bundle begins within about a second, a stopped one with its next start.",
        example=f"evento consumers {words}retry OrderProjector --all --store sqlite:shop.db",
    )
    _add_consumer(verb)
    _add_selection(verb)
    verb.add_argument("--cancel", action="store_true", help="take the mark off again, where it is not done yet")


def _add_discard(verbs: Verbs, words: str) -> None:
    verb = add_verb(
        verbs,
        "discard",
        _discard,
        summary="give dead events up, for ever",
        detail="Remove dead events from the queue: the consumer will never handle them. Those that wait behind them "
        "are handled then. The event store keeps them all.",
        example=f"evento consumers {words}discard OrderProjector 42 --store sqlite:shop.db",
    )
    _add_consumer(verb)
    _add_selection(verb)
    verb.add_argument("--waiting", action="store_true", help="discard waiting events that match, instead of dead ones")
    verb.add_argument("--yes", action="store_true", help="do not ask for confirmation")


def _add_consumer(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("component", type=text, metavar="COMPONENT", help="the name of the consumer's component")
    which = verb.add_argument_group("where several consumers have that name")
    which.add_argument("--version", type=count, metavar="N", help="the one of this version")
    which.add_argument("--context", type=text, metavar="X", help="the one that reads this context")
    which.add_argument("--bundle", type=text, metavar="X", help="the one of this bundle")
    _add_common(verb)


def _add_conditions(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--key", type=text, metavar="X", help="only events of this key: the aggregate id")
    verb.add_argument("--name", type=text, metavar="X", help="only events of this name")
    verb.add_argument("--error", type=text, metavar="X", help="only events with this type of error")


def _add_selection(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("position", type=position, nargs="?", metavar="POSITION", help="the event's position")
    _add_conditions(verb)
    verb.add_argument("--all", action="store_true", help="all dead events of the consumer")


def _add_common(verb: argparse.ArgumentParser) -> None:
    add_json(verb)
    add_store_options(verb)
    add_consumers_option(verb)


# Work -----------------------------------------------------------------------------------------------------------------


async def _with_consumers(
    arguments: argparse.Namespace, work: Callable[[Consumers], Awaitable[R]], *, read_only: bool
) -> R:
    async with open_consumers(arguments, read_only=read_only) as consumers:
        return await work(consumers)


def _read(arguments: argparse.Namespace, work: Callable[[Consumers], Awaitable[R]]) -> R:
    return asyncio.run(_with_consumers(arguments, work, read_only=True))


def _write(arguments: argparse.Namespace, work: Callable[[Administration, ConsumerId], Awaitable[R]]) -> Any:
    """Ask for something; return the answer and the consumer's status, read before it."""

    async def run(consumers: Consumers) -> tuple[R, ConsumerStatus, bool]:
        consumer = await _find(arguments, consumers)
        status = await consumers.status(consumer)  # refuses two stores that do not belong together
        answer = await work(consumers.administration, consumer)
        return answer, status, await consumers.is_running(consumer)

    return asyncio.run(_with_consumers(arguments, run, read_only=False))


async def _find(arguments: argparse.Namespace, consumers: Consumers) -> ConsumerId:
    return await consumers.administration.find(
        arguments.component, version=arguments.version, context=arguments.context, bundle=arguments.bundle
    )


# Verbs -----------------------------------------------------------------------------------------------------------


def _list(arguments: argparse.Namespace) -> int:
    statuses = _read(arguments, lambda consumers: consumers.administration.list())
    output = Output(json=arguments.json)
    if output.json:
        for status in statuses:
            output.object(status_line(status))
    else:
        print_statuses(output, statuses)
    return DONE


def _show(arguments: argparse.Namespace) -> int:
    async def show(consumers: Consumers) -> ConsumerStatus:
        return await consumers.status(await _find(arguments, consumers))

    status = _read(arguments, show)
    output = Output(json=arguments.json)
    if output.json:
        output.object(status_line(status))
    else:
        print_status(output, status)
    return DONE


def _pause(arguments: argparse.Namespace) -> int:
    _, status, running = _write(arguments, lambda administration, consumer: administration.pause(consumer))
    return _answer(arguments, status.id, "paused", None, running)


def _resume(arguments: argparse.Namespace) -> int:
    _, status, running = _write(arguments, lambda administration, consumer: administration.resume(consumer))
    return _answer(arguments, status.id, "resumed", None, running)


def _dead_list(arguments: argparse.Namespace) -> int:
    waiting = True if arguments.waiting else False if arguments.dead else None
    output = Output(json=arguments.json)

    async def run(consumers: Consumers) -> None:
        consumer = await _find(arguments, consumers)
        after, left = arguments.after, arguments.limit
        while left:
            events = await consumers.administration.dead(
                consumer,
                key=arguments.key,
                event_name=arguments.name,
                error_type=arguments.error,
                waiting=waiting,
                after=after,
                limit=min(left, _PAGE),
            )
            if not events:
                return
            for event in events:
                if output.json:
                    output.object(dead_line(event))
                else:
                    print_dead(output, event)
            after, left = events[-1].position, left - len(events)

    _read(arguments, run)
    return DONE


def _retry(arguments: argparse.Namespace) -> int:
    selection = _selection(arguments)

    async def ask(administration: Administration, consumer: ConsumerId) -> int:
        request = administration.cancel_retry if arguments.cancel else administration.retry
        return await request(consumer, **selection)

    amount, status, running = _write(arguments, ask)
    return _answer(arguments, status.id, "unmarked" if arguments.cancel else "marked for a retry", amount, running)


def _discard(arguments: argparse.Namespace) -> int:
    selection = _selection(arguments)
    if not arguments.yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise WrongUse("discard gives events up for ever and there is no terminal to ask on: add --yes")
        _confirm(arguments, selection)

    async def ask(administration: Administration, consumer: ConsumerId) -> int:
        return await administration.discard(consumer, **selection, waiting=arguments.waiting)

    amount, status, running = _write(arguments, ask)
    return _answer(arguments, status.id, "discarded", amount, running)


def _selection(arguments: argparse.Namespace) -> dict[str, Any]:
    conditions = {
        "position": arguments.position,
        "key": arguments.key,
        "event_name": arguments.name,
        "error_type": arguments.error,
    }
    if arguments.all == any(condition is not None for condition in conditions.values()):
        raise WrongUse("say which events: POSITION, --key, --name or --error; or --all")
    return {**conditions, "all": arguments.all}


def _confirm(arguments: argparse.Namespace, selection: dict[str, Any]) -> None:
    async def look(consumers: Consumers) -> str:
        consumer = await _find(arguments, consumers)
        conditions = {name: value for name, value in selection.items() if name != "all"}
        waiting = None if arguments.position is not None else arguments.waiting
        events = await consumers.administration.dead(consumer, **conditions, waiting=waiting, limit=1000)
        amount = "1,000 events or more" if len(events) == 1000 else counted(len(events), "event")
        return f"{amount} of {consumer} will be given up for ever."

    print(printable(_read(arguments, look)), file=sys.stderr)
    print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandFailed("nothing was discarded, as you did not confirm")


def _answer(arguments: argparse.Namespace, consumer: ConsumerId, done: str, amount: int | None, running: bool) -> int:
    output = Output(json=arguments.json)
    if output.json:
        output.object({"consumer": str(consumer), "done": done, "events": amount, "running": running})
        return DONE
    subject = (
        printable(str(consumer)) if amount is None else f"{counted(amount, 'event')} of {printable(str(consumer))}"
    )
    when = (
        "the running bundle follows within about a second" if running else "no bundle runs it: its next start follows"
    )
    output.line(f"{done}: {subject}" + ("" if amount == 0 else f" ({when})"))
    return DONE
