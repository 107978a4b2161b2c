"""What the terminal prints of consumers and dead events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evento.cli.output import Output, counted, printable, rfc3339
from evento.consumers import ConsumerStatus, DeadEvent
from evento.messages import to_micros

__all__ = ["dead_line", "print_dead", "print_status", "print_statuses", "status_line"]

_SHOWN_ERROR = 100


def status_line(status: ConsumerStatus) -> dict[str, Any]:
    """Return a consumer as ``--json`` prints it: a fixed contract, see docs/cli.md."""
    return {
        "bundle": status.id.bundle,
        "component": status.id.component,
        "version": status.id.version,
        "context": status.id.context,
        "state": status.state.value,
        "position": str(status.position),
        "head": str(status.head),
        "lag_events": status.lag_events,
        "lag_seconds": status.lag_seconds,
        "errors": status.errors,
        "last_error": status.last_error,
        "failing_since": None if status.failing_since is None else rfc3339(to_micros(status.failing_since)),
        "dead": status.dead,
        "waiting": status.waiting,
        "retrying": status.retrying,
    }


def dead_line(event: DeadEvent) -> dict[str, Any]:
    """Return a dead event as ``--json`` prints it: a fixed contract, see docs/cli.md."""
    return {
        "position": str(event.position),
        "event_id": event.event_id,
        "event_name": event.event_name,
        "context": event.context,
        "aggregate_id": event.aggregate_id,
        "key": event.key,
        "waiting": event.waiting,
        "retry": event.retry,
        "error_type": event.error_type or None,
        "error_message": event.error_message or None,
        "traceback": event.traceback or None,
        "attempts": event.attempts,
        "parked_at": rfc3339(event.parked_at),
    }


def print_statuses(output: Output, statuses: Sequence[ConsumerStatus]) -> None:
    """Print a table of consumers."""
    head = ("CONSUMER", "STATE", "POSITION", "LAG", "AGE", "DEAD", "WAITING", "ERRORS")
    table = [head, *(_cells(status) for status in statuses)]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    for row in table:
        cells = (
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        output.line("  ".join(cells).rstrip())


def _cells(status: ConsumerStatus) -> tuple[str, ...]:
    return (
        printable(str(status.id)),
        status.state.value,
        f"{status.position:,}",
        f"{status.lag_events:,}",
        _age(status),
        f"{status.dead:,}",
        f"{status.waiting:,}",
        f"{status.errors:,}",
    )


def print_status(output: Output, status: ConsumerStatus) -> None:
    """Print one consumer."""
    output.facts(
        [
            ("consumer", printable(str(status.id))),
            ("state", status.state.value),
            ("position", f"{status.position:,} of {status.head:,}"),
            ("lag", f"{status.lag_events:,} events, {_age(status)}"),
            ("errors", f"{status.errors:,} since the last progress"),
            ("failing since", "-" if status.failing_since is None else rfc3339(to_micros(status.failing_since))),
            ("last error", printable(status.last_error or "-")),
            ("dead events", f"{status.dead:,}, {status.waiting:,} wait behind them, {status.retrying:,} to be retried"),
        ]
    )


def _age(status: ConsumerStatus) -> str:
    return f"{status.lag_seconds or 0:.0f} s"


def print_dead(output: Output, event: DeadEvent) -> None:
    """Print a dead or waiting event on one line."""
    if event.waiting:
        why = "waits"
    else:
        error = f"{event.error_type}: {event.error_message}"
        shown = error if len(error) <= _SHOWN_ERROR else f"{error[:_SHOWN_ERROR]}..."
        why = f"{'to be retried' if event.retry else 'dead'} after {counted(event.attempts, 'attempt')}, {shown}"
    line = f"{event.position:>9}  {rfc3339(event.parked_at)}  {event.event_name}  {event.key or '-'}  {why}"
    output.line(printable(line))
