"""``evento store``: describe, verify and purge a System State Store."""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import closing, suppress
from dataclasses import asdict, replace

from evento.cli.arguments import Verbs, add_json, add_verb, add_verb_group, duration, moment
from evento.cli.errors import DONE, FAILED, CommandFailed, ReaderGone, WrongUse
from evento.cli.locations import add_store_options, open_store
from evento.cli.output import Output, Progress, note, printable, rfc3339
from evento.messages import now_micros
from evento.state_store import PurgeReport, StoreInfo, VerifyReport

__all__ = ["add_store"]


def add_store(verbs: Verbs) -> None:
    """Declare ``evento store``."""
    group = add_verb_group(verbs, "store", summary="describe, verify and purge a store")
    info = add_verb(
        group,
        "info",
        _info,
        summary="print what the store is and holds",
        detail="Print what the store is and how much it holds.",
        example="evento store info --store sqlite:shop.db",
    )
    verify = add_verb(
        group,
        "verify",
        _verify,
        summary="read the whole store and check its invariants",
        detail="Read the whole store and check its invariants. Exit code 1 when one is broken; each is named.",
        example="evento store verify --store sqlite:shop.db",
    )
    purge = add_verb(
        group,
        "purge",
        _purge,
        summary="remove the events of aggregates that were deleted long ago",
        detail="Remove, for ever, the events of aggregates that were deleted before a moment. The deleting events and "
        "the command ids stay, so that nothing can be stored twice. On SQLite, no bundle may use the store meanwhile.",
        example="evento store purge --store sqlite:shop.db --older-than 365d --dry-run",
    )
    when = purge.add_mutually_exclusive_group(required=True)
    when.add_argument("--deleted-before", type=moment, metavar="T", help="deleted before this time or date (UTC)")
    when.add_argument("--older-than", type=duration, metavar="D", help="deleted longer ago than 365d, 12h, 2w ...")
    purge.add_argument("--dry-run", action="store_true", help="only print what would be removed")
    purge.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    for verb in (info, verify, purge):
        add_json(verb)
        add_store_options(verb)


def _info(arguments: argparse.Namespace) -> int:
    info = asyncio.run(_read_info(arguments))
    output = Output(json=arguments.json)
    if output.json:
        output.object({**asdict(info), "head": str(info.head)})
    else:
        _print_info(output, info)
    return DONE


async def _read_info(arguments: argparse.Namespace) -> StoreInfo:
    async with open_store(arguments) as store:
        return await store.info()


def _print_info(output: Output, info: StoreInfo) -> None:
    output.facts(
        [
            ("location", printable(info.location)),
            ("size", _size(info.size)),
            ("store id", info.store_id),
            ("epoch", str(info.epoch)),
            ("schema version", str(info.schema_version)),
            ("head", f"{info.head:,}"),
            ("events", f"{info.events:,}"),
            ("aggregates", f"{info.aggregates:,} ({info.deleted_aggregates:,} deleted)"),
            ("snapshots", f"{info.snapshots:,}"),
            ("purged ranges", f"{info.purged_ranges:,}"),
        ]
    )


def _verify(arguments: argparse.Namespace) -> int:
    report = asyncio.run(_run_verify(arguments))
    with suppress(ReaderGone):  # who reads only the first lines of many problems must not change the exit code
        _print_verified(Output(json=arguments.json), report)
    if report.ok:
        return DONE
    problems = len(report.problems)
    note(f"evento: the store is broken: {problems} problem{'' if problems == 1 else 's'} found")
    return FAILED


def _print_verified(output: Output, report: VerifyReport) -> None:
    if output.json:
        output.object({"ok": report.ok, **asdict(report)})
        return
    output.line(f"{report.events:,} events of {report.aggregates:,} aggregates: {'ok' if report.ok else 'broken'}")
    for problem in report.problems:
        output.line(f"broken: {printable(problem)}")


async def _run_verify(arguments: argparse.Namespace) -> VerifyReport:
    async with open_store(arguments) as store:
        with closing(Progress("verify")) as progress:
            return await store.verify(progress)


def _purge(arguments: argparse.Namespace) -> int:
    before = arguments.deleted_before
    if before is None:
        before = now_micros() - arguments.older_than
    output = Output(json=arguments.json)
    sure = arguments.yes or arguments.dry_run
    if not sure and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise WrongUse("purge removes events for ever and there is no terminal to ask on: add --yes, or --dry-run")
    if not sure:
        # The question waits outside of the store: nobody is held up by a person who is thinking.
        planned = asyncio.run(_run_purge(arguments, before, dry_run=True))
        if planned.events and not _confirmed(planned, before):
            raise CommandFailed("nothing was purged, as you did not confirm")
    report = asyncio.run(_run_purge(arguments, before, dry_run=arguments.dry_run))
    _print_purged(output, report, before, dry_run=arguments.dry_run)
    return DONE


async def _run_purge(arguments: argparse.Namespace, before: int, *, dry_run: bool) -> PurgeReport:
    # A dry run of its own only reads; the one before a question tells a store in use before it asks.
    async with open_store(arguments, read_only=arguments.dry_run) as store:
        with closing(Progress("purge")) as progress:
            return await store.purge(deleted_before=before, dry_run=dry_run, progress=progress)


def _confirmed(planned: PurgeReport, before: int) -> bool:
    print(f"{_amount(planned)}, deleted before {rfc3339(before)}, will be removed for ever.", file=sys.stderr)
    print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _print_purged(output: Output, report: PurgeReport, before: int, *, dry_run: bool) -> None:
    if output.json:
        output.object(
            {
                "dry_run": dry_run,
                "deleted_before": rfc3339(before),
                **asdict(replace(report, ranges=())),
                "ranges": [[str(first), str(last)] for first, last in report.ranges],
            }
        )
        return
    output.line(f"{'would remove' if dry_run else 'removed'} {_amount(report)}")
    for first, last in report.ranges:
        output.line(f"positions {first} to {last}")


def _amount(report: PurgeReport) -> str:
    return f"{report.events:,} events of {report.aggregates:,} deleted aggregates"


def _size(size: int) -> str:
    amount = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
