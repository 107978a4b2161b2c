"""A process whose disk is full for a while: ``full_disk.py DIRECTORY limit|tmpfs KEPT``.

It prints what its callers were told, and leaves a copy of its files in KEPT.
"""

from __future__ import annotations

import asyncio
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from depot import running
from shop import ItemAddCommand, OrderPlaceCommand
from work import inside

from evento import EventoBundle, StoreUnavailable

Switch = Callable[[], None]


class Told(msgspec.Struct):
    """What callers were told: positions by message id, and the errors that they got before."""

    positions: dict[str, int] = {}
    refused: list[str] = []
    doubtful: list[str] = []
    messages: list[str] = []


def limited(directory: Path) -> tuple[Switch, Switch]:
    """Return how to let no file grow any more, and how to end that."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(file.stat().st_size for file in directory.iterdir())
    return (
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 40_000, hard)),
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)),
    )


def filled(directory: Path) -> tuple[Switch, Switch]:
    """Return how to fill the file system of the directory but for a little, and how to empty it."""
    ballast = directory / "ballast"

    def fill() -> None:
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                file.truncate(max(0, file.tell() - 40_000))

    return fill, ballast.unlink


async def send(bundle: EventoBundle, told: Told, number: int) -> None:
    """Send one command and note what comes of it."""
    message_id = f"add-{number}"
    try:
        message = await bundle.commands.send_message(
            ItemAddCommand(f"ORD_{number % 5}", "tea", 0), message_id=message_id
        )
    except StoreUnavailable as error:
        (told.refused if error.definite else told.doubtful).append(message_id)
        told.messages.append(error.message)
    else:
        assert told.positions.setdefault(message_id, message.position) == message.position


async def main(directory: Path, way: str) -> Told:
    """Work, fill the disk, work on, empty it, send everything again."""
    told = Told()
    async with running(directory, 1) as bundle:
        for number in range(5):
            await bundle.commands.send(OrderPlaceCommand(f"ORD_{number}", "ann"), message_id=f"place-{number}")
        fill, empty = {"limit": limited, "tmpfs": filled}[way](directory)
        fill()
        for start in range(0, 2000, 20):
            await asyncio.gather(*(send(bundle, told, number) for number in range(start, start + 20)))
            if len(told.refused) + len(told.doubtful) > 60:
                break
        store = inside(bundle).store
        assert [await store.lookup(message_id) for message_id in told.refused] == [None] * len(told.refused)
        assert await store.head() == 5 + len(told.positions)
        empty()
        for number in range(start + 20):
            await send(bundle, told, number)
        await bundle.consumers_caught_up(30)
    return told


if __name__ == "__main__":
    told = asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
    shutil.copytree(sys.argv[1], sys.argv[3])
    print(msgspec.json.encode(told).decode())  # noqa: T201
