"""What a worker has been told: an append-only file that outlives its kill, and the commands that it speaks of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Literal, TypeAlias

import msgspec
from shop import ItemAddCommand, OrderCancelCommand, OrderPlaceCommand, PaymentCaptureCommand

from evento import (
    AggregateAlreadyInitialized,
    AggregateDeleted,
    AggregateNotInitialized,
    CommandRejected,
    EventoBundle,
    EventoError,
)
from evento.gateway.requests import NOT_NOW

REFUSALS = (CommandRejected, AggregateAlreadyInitialized, AggregateNotInitialized, AggregateDeleted)
Outcome: TypeAlias = Literal["done", "refused", "nothing", "unknown", "wrong"]


class Order(msgspec.Struct, frozen=True):
    """A command as data: what a resend repeats."""

    id: str
    kind: str
    order_id: str
    quantity: int = 0
    lock: str | None = "own"
    cold: bool = False
    replay: bool = False

    @property
    def command(self) -> Any:
        """The command."""
        match self.kind:
            case "place":
                return OrderPlaceCommand(self.order_id, f"customer of {self.order_id}")
            case "add":
                return ItemAddCommand(
                    self.order_id,
                    "tea",
                    self.quantity,
                    self.lock,
                    invalidate_aggregate_caches=self.cold,
                    invalidate_aggregate_snapshot=self.replay,
                )
            case "cancel":
                return OrderCancelCommand(self.order_id)
            case _:
                return PaymentCaptureCommand(self.order_id, self.quantity)


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line: a command that is about to be sent, or what came of it."""

    id: str
    sent: Order | None = None
    position: int | None = None
    version: int | None = None
    refused: str | None = None
    unknown: str | None = None
    nothing: str | None = None
    given_up: str | None = None
    wrong: str | None = None


class Journal:
    """Lines in a file, each written by one call of the operating system."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, line: Line) -> None:
        """Write a line."""
        os.write(self._file, msgspec.json.encode(line) + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def read(self) -> History:
        """Return what all processes have written so far."""
        history = History()
        for text in self._path.read_bytes().splitlines():
            history.add(msgspec.json.decode(text, type=Line))
        return history


class History:
    """The journal, read."""

    def __init__(self) -> None:
        self.sent: dict[str, Order] = {}
        self.done: dict[str, tuple[int, int | None]] = {}
        self.refused: dict[str, str] = {}
        self.given_up: set[str] = set()
        self.wrong: list[str] = []

    def add(self, line: Line) -> None:
        """Take note of a line; an answer that contradicts a former one is wrong."""
        if line.sent is not None:
            self.sent.setdefault(line.id, line.sent)
        elif line.wrong is not None:
            self.wrong.append(f"{self.sent[line.id]}: {line.wrong}")
        elif line.given_up is not None:
            self.given_up.add(line.id)
        elif line.refused is not None:
            self.refused[line.id] = line.refused
            if line.id in self.done:
                self.wrong.append(f"{self.sent[line.id]} was stored, but a resend was refused: {line.refused}")
        elif line.position is not None:
            answer = (line.position, line.version)
            if self.done.setdefault(line.id, answer) != answer:
                self.wrong.append(f"{self.sent[line.id]} was stored as {self.done[line.id]}, a resend says {answer}")

    @property
    def open(self) -> list[Order]:
        """The commands without an answer."""
        closed = self.done.keys() | self.refused.keys() | self.given_up
        return [order for key, order in self.sent.items() if key not in closed]


async def send(bundle: EventoBundle, journal: Journal, order: Order, *, timeout: float = 30.0) -> bool:
    """Send a command and write down what is said about it; return whether it has its answer.

    That it was not handled is right only of one with so little time that it is over when its process, which stood
    still, goes on.
    """
    outcome = await ask(bundle, journal, order, timeout=timeout)
    if outcome == "nothing" and timeout >= 1:
        journal.write(Line(order.id, wrong="it was not handled"))
    return outcome not in ("unknown", "nothing")


async def ask(bundle: EventoBundle, journal: Journal, order: Order, *, timeout: float = 30.0) -> Outcome:
    """Send a command, where there may be nobody to handle it; write down what is said about it, and return that."""
    journal.write(Line(order.id, sent=order))
    try:
        message = await bundle.commands.send_message(order.command, message_id=order.id, timeout=timeout)
    except REFUSALS as error:
        journal.write(Line(order.id, refused=f"{type(error).__name__}: {error}"))
        return "refused"
    except EventoError as error:
        if not error.definite:
            journal.write(Line(order.id, unknown=repr(error)))
            return "unknown"
        if isinstance(error, NOT_NOW):
            journal.write(Line(order.id, nothing=repr(error)))
            return "nothing"
        journal.write(Line(order.id, wrong=repr(error)))
        return "wrong"
    except Exception as error:
        journal.write(Line(order.id, wrong=repr(error)))
        return "wrong"
    assert message is not None
    journal.write(Line(order.id, position=message.position, version=message.version))
    return "done"


def orders(random: Random, *, prefix: str, aggregates: str, width: int = 24) -> Iterator[Order]:
    """Make commands for ever: for ``width`` orders, each placed, filled, paid and now and then cancelled.

    :param prefix: of the message ids.
    :param aggregates: prefix of the order ids.
    """
    number = 0
    while True:
        number += 1
        message_id, order_id = f"{prefix}-{number}", f"{aggregates}-{random.randrange(width)}"
        match random.random():
            case chance if chance < 0.15:
                yield Order(message_id, "place", order_id)
            case chance if chance < 0.78:
                yield Order(
                    message_id,
                    "add",
                    order_id,
                    random.randrange(-4, 8),
                    lock=random.choices(("own", f"LOCK_{aggregates}_{random.randrange(3)}", None), (85, 10, 5))[0],
                    cold=random.random() < 0.03,
                    replay=random.random() < 0.03,
                )
            case chance if chance < 0.79:
                yield Order(message_id, "cancel", order_id)
            case _:
                yield Order(message_id, "pay", order_id, random.randrange(-1, 50))
