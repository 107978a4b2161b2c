"""``evento bundles``: which instances of which bundles live in a cluster."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from typing import Any

from evento.cli.arguments import Verbs, add_json, add_verb, text
from evento.cli.cluster import add_cluster_options, ask_registry, cluster_address, connected
from evento.cli.errors import DONE, WrongUse
from evento.cli.output import Output, note, printable, rfc3339
from evento.messages.registration import InstanceView

__all__ = ["add_bundles"]

_HEADINGS = ("BUNDLE", "VERSION", "STATE", "HEARTBEAT", "STARTED", "HOST", "PID", "INSTANCE")


def add_bundles(verbs: Verbs) -> None:
    """Declare ``evento bundles``."""
    bundles = add_verb(
        verbs,
        "bundles",
        _bundles,
        summary="print the bundles of a cluster that run",
        detail="Print each instance of a bundle that lives: whether it takes requests of others, and how long ago its "
        "servers have heard of it.",
        example="evento bundles --server nats://localhost:3030",
    )
    bundles.add_argument("bundle", type=text, nargs="?", metavar="BUNDLE", help="only the instances of this bundle")
    bundles.add_argument(
        "--server", type=text, metavar="URL", help="nats://HOST:3030, several with commas (default: $EVENTO_SERVER)"
    )
    add_json(bundles)
    add_cluster_options(bundles)


def _bundles(arguments: argparse.Namespace) -> int:
    address = cluster_address(arguments)
    if address is None:
        raise WrongUse("which servers? give --server nats://HOST:3030, or set $EVENTO_SERVER")
    instances = asyncio.run(_view(arguments, address))
    output = Output(json=arguments.json)
    if output.json:
        for instance in instances:
            output.object(instance_line(instance))
    elif instances:
        _print_table(output, instances)
    else:
        note("no bundle runs" if arguments.bundle is None else f"no instance of {arguments.bundle} runs")
    return DONE


async def _view(arguments: argparse.Namespace, address: str) -> Sequence[InstanceView]:
    from evento.gateway.nats.registry import ViewCall

    async with connected(arguments, address) as connection:
        instances: Sequence[InstanceView] = await ask_registry(connection, "view", ViewCall(arguments.bundle))
        return instances


def instance_line(instance: InstanceView) -> dict[str, Any]:
    """Return an instance as ``--json`` prints it: a fixed contract, see docs/cli.md."""
    return {
        "bundle": instance.bundle_id,
        "instance": instance.instance_id,
        "version": instance.version,
        "enabled": instance.enabled,
        "heartbeat_age": round(instance.heartbeat_age, 3),
        "started_at": rfc3339(instance.started_at),
        "host": instance.host,
        "pid": instance.pid,
        "server": instance.server,
    }


def _print_table(output: Output, instances: Sequence[InstanceView]) -> None:
    rows = [_HEADINGS, *(_cells(instance) for instance in instances)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        output.line("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _cells(instance: InstanceView) -> tuple[str, ...]:
    return (
        printable(instance.bundle_id),
        str(instance.version),
        "enabled" if instance.enabled else "disabled",
        f"{instance.heartbeat_age:.1f} s",
        rfc3339(instance.started_at),
        printable(instance.host),
        str(instance.pid),
        printable(instance.instance_id),
    )
