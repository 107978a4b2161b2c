"""``evento events``: list, follow and show what the System State Store holds."""

from __future__ import annotations

import argparse
import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import msgspec

from evento.cli.arguments import Verbs, add_json, add_verb, add_verb_group, after, count, moment, position, text
from evento.cli.errors import DONE, CommandFailed, WrongUse
from evento.cli.locations import add_store_options, open_store
from evento.cli.output import Output, note, printable, rfc3339
from evento.messages import EventRecord
from evento.state_store import AlreadyStored, EventFilter, Refused, StateStore

__all__ = ["EventLine", "add_events"]

_PAGE = 500
"""How many events are held in memory at once."""

_POLL_SECONDS = 1.0
"""How often ``tail`` looks whether its reader is still there."""


class EventLine(msgspec.Struct, frozen=True):
    """An event as ``--json`` prints it: a fixed contract, see docs/cli.md."""

    position: str
    context: str
    aggregate_id: str | None
    version: int | None
    name: str
    schema_version: int
    kind: str
    payload: msgspec.Raw
    metadata: msgspec.Raw
    event_id: str
    command_id: str
    correlation_id: str
    causation_id: str | None
    timestamp: str
    deleted_at: str | None

    @classmethod
    def of(cls, record: EventRecord) -> EventLine:
        """Return the line of a stored event; payload and metadata keep their bytes, so numbers stay as written."""
        return cls(
            position=str(record.position),
            context=record.context,
            aggregate_id=record.aggregate_id,
            version=record.version,
            name=record.name,
            schema_version=record.schema_version,
            kind=record.kind,
            payload=_one_line(record, record.payload),
            metadata=_one_line(record, record.metadata),
            event_id=record.event_id,
            command_id=record.command_id,
            correlation_id=record.correlation_id,
            causation_id=record.causation_id,
            timestamp=rfc3339(record.timestamp),
            deleted_at=None if record.deleted_at is None else rfc3339(record.deleted_at),
        )


def add_events(verbs: Verbs) -> None:
    """Declare ``evento events``."""
    group = add_verb_group(verbs, "events", summary="list, follow and show the events of a store")
    listing = add_verb(
        group,
        "list",
        _list,
        summary="print events in their order",
        detail="Print the events that match all given conditions, in their order, oldest first.",
        example="evento events list --store sqlite:shop.db --name OrderPlacedEvent --from 2026-01-31 --json",
    )
    listing.add_argument("--after", type=after, default=0, metavar="N", help="only positions beyond N")
    listing.add_argument("--limit", type=count, default=100, metavar="N", help="at most N events (default: 100)")
    _add_conditions(listing)
    listing.add_argument("--from", dest="since", type=moment, metavar="T", help="only from this time or date (UTC) on")
    listing.add_argument("--to", dest="until", type=moment, metavar="T", help="only before this time or date (UTC)")
    _add_common(listing)
    tail = add_verb(
        group,
        "tail",
        _tail,
        summary="print new events as they are stored, until Ctrl-C",
        detail="Print new events as they are stored, also by other processes, until Ctrl-C.",
        example="evento events tail --store sqlite:shop.db --aggregate ORD_1",
    )
    tail.add_argument("--after", type=after, metavar="N", help="start beyond position N (default: at the end)")
    _add_conditions(tail)
    _add_common(tail)
    show = add_verb(
        group,
        "show",
        _show,
        summary="print all that is known of one event",
        detail="Print all that is known of one event: the one at a position, or the one that a command caused.",
        example="evento events show 42 --store sqlite:shop.db",
    )
    show.add_argument("position", type=position, nargs="?", metavar="POSITION", help="the event's position")
    show.add_argument("--command", type=text, metavar="ID", help="instead: the id of the command that caused the event")
    _add_common(show)


def _add_conditions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", type=text, metavar="X", help="only events of this name")
    parser.add_argument("--aggregate", type=text, metavar="X", help="only events of this aggregate id")
    parser.add_argument("--context", type=text, metavar="X", help="only events of this context")


def _add_common(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    add_store_options(parser)


def _list(arguments: argparse.Namespace) -> int:
    if arguments.since is not None and arguments.until is not None and arguments.since >= arguments.until:
        raise WrongUse("--from must be earlier than --to (which is exclusive)")
    asyncio.run(_print_matches(arguments))
    return DONE


def _tail(arguments: argparse.Namespace) -> int:
    with suppress(KeyboardInterrupt):  # Ctrl-C is how this command is meant to end
        asyncio.run(_follow(arguments))
    return DONE


def _show(arguments: argparse.Namespace) -> int:
    if (arguments.position is None) == (arguments.command is None):
        raise WrongUse("give either a POSITION or --command ID")
    asyncio.run(_print_one(arguments))
    return DONE


async def _print_matches(arguments: argparse.Namespace) -> None:
    printer = _Printer(Output(json=arguments.json))
    async with open_store(arguments) as store:
        async for page in _matches(store, _criteria(arguments), after=arguments.after, limit=arguments.limit):
            printer.print(page)
    if not printer.printed and not arguments.json:
        note("no events match")


async def _matches(
    store: StateStore, criteria: EventFilter, *, after: int, limit: int
) -> AsyncIterator[Sequence[EventRecord]]:
    more = True
    while more and limit > 0:
        found = await store.search(criteria, after=after, limit=min(limit, _PAGE))
        yield found.events
        more = found.more
        if more:
            after = found.events[-1].position
            limit -= len(found.events)


async def _follow(arguments: argparse.Namespace) -> None:
    printer = _Printer(Output(json=arguments.json))
    criteria = _criteria(arguments)
    async with open_store(arguments) as store:
        head = await store.head()
        seen = head if arguments.after is None else arguments.after
        while True:
            while seen < head:
                found = await store.search(criteria, after=seen, before=head + 1, limit=_PAGE)
                printer.print(found.events)
                # Up to the head nothing else matches: a rare event must not make each look start over.
                seen = found.events[-1].position if found.more else head
            printer.output.flush()
            head = await store.wait(seen, timeout=_POLL_SECONDS)
            printer.output.check_reader()


async def _print_one(arguments: argparse.Namespace) -> None:
    output = Output(json=arguments.json)
    async with open_store(arguments) as store:
        if arguments.command is None:
            record = await _at_position(store, arguments.position)
        else:
            record = await _of_command(store, arguments.command)
    if output.json:
        output.object(EventLine.of(record))
    else:
        _print_details(output, record)


async def _at_position(store: StateStore, wanted: int) -> EventRecord:
    record = await store.event(wanted)
    if record is not None:
        return record
    head = await store.head()
    if 0 < wanted <= head:
        raise CommandFailed(f"the event at position {wanted} was purged")
    held = f"has the positions 1 to {head}" if head else "is empty"
    raise CommandFailed(f"there is no event at position {wanted}: the store {held}")


async def _of_command(store: StateStore, command_id: str) -> EventRecord:
    match await store.lookup(command_id):
        case AlreadyStored(record=EventRecord() as record):
            return record
        case AlreadyStored(name=name):
            raise CommandFailed(f"the event {name} of command {command_id} was purged")
        case Refused(error=error):
            raise CommandFailed(f"command {command_id} has no event, it was answered with: {error.message}")
        case _:
            raise CommandFailed(f"the store knows no command {command_id}")


def _criteria(arguments: argparse.Namespace) -> EventFilter:
    return EventFilter(
        name=arguments.name,
        aggregate_id=arguments.aggregate,
        context=arguments.context,
        since=getattr(arguments, "since", None),
        until=getattr(arguments, "until", None),
    )


class _Printer:
    """Prints pages of events, as JSON lines or as a table whose columns fit the first page."""

    _HEADINGS = ("POSITION", "TIME", "CONTEXT", "AGGREGATE", "VERSION", "NAME", "PAYLOAD")

    def __init__(self, output: Output) -> None:
        self.output = output
        self.printed = False
        self._widths: list[int] = []

    def print(self, page: Sequence[EventRecord]) -> None:
        if self.output.json:
            for record in page:
                self.output.object(EventLine.of(record))
        elif page:
            self._print_rows([_cells(record) for record in page])
        self.printed = self.printed or bool(page)

    def _print_rows(self, rows: list[tuple[str, ...]]) -> None:
        if not self._widths:
            rows.insert(0, self._HEADINGS)
            self._widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
        columns = shutil.get_terminal_size().columns if self.output.is_terminal else None
        for row in rows:
            line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, self._widths, strict=False))
            self.output.line(_cut(f"{line}  {row[-1]}", columns))


def _cells(record: EventRecord) -> tuple[str, ...]:
    return (
        str(record.position),
        rfc3339(record.timestamp),
        printable(record.context),
        printable(record.aggregate_id or "-"),
        "-" if record.version is None else str(record.version),
        printable(record.name),
        printable(record.payload.decode(errors="backslashreplace")),
    )


def _cut(line: str, columns: int | None) -> str:
    return line if columns is None or len(line) <= columns else f"{line[: columns - 1]}…"


def _print_details(output: Output, record: EventRecord) -> None:
    output.facts(
        [
            ("position", str(record.position)),
            ("name", printable(record.name)),
            ("kind", record.kind),
            ("schema version", str(record.schema_version)),
            ("context", printable(record.context)),
            ("aggregate", "-" if record.aggregate_id is None else printable(record.aggregate_id)),
            ("version", "-" if record.version is None else str(record.version)),
            ("time", rfc3339(record.timestamp)),
            ("event id", printable(record.event_id)),
            ("command id", printable(record.command_id)),
            ("correlation id", printable(record.correlation_id)),
            ("causation id", "-" if record.causation_id is None else printable(record.causation_id)),
            ("deleted", "-" if record.deleted_at is None else rfc3339(record.deleted_at)),
        ]
    )
    for title, data in (("metadata", record.metadata), ("payload", record.payload)):
        output.line(title)
        for line in msgspec.json.format(_checked(record, data), indent=2).decode().splitlines():
            output.line(f"  {printable(line)}")


def _one_line(record: EventRecord, data: bytes) -> msgspec.Raw:
    # Outside of strings JSON may hold line breaks, inside it cannot.
    return msgspec.Raw(_checked(record, data).replace(b"\n", b" ").replace(b"\r", b" "))


def _checked(record: EventRecord, data: bytes) -> bytes:
    try:
        msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CommandFailed(
            f"the event at position {record.position} is damaged ({error}): run evento store verify"
        ) from error
    return data
