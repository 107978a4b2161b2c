"""Where a command's time goes: the event loop's thread by layer, and what it waits for.

A timer interrupts the loop's thread once a millisecond and notes in which of Evento's packages it is: the innermost
frame says so, and what it calls in C counts for it. A thread that is in none of them waits for the store's writer. The
timer costs a few percent, so read shares here and rates elsewhere.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import evento
from commands import Load, run_on_fast_loop
from figures import Table

__all__ = ["table"]

_EVENTO = Path(evento.__file__).parent
_HERE = Path(__file__).parent
_LAYERS = {
    "messages": "messages: check, encode and decode payloads, ids",
    "gateway": "gateway: envelopes, deadlines, the bus",
    "bundle": "bundle: admission, boundaries, state cache, deciding, folding",
    "components": "components: calling handlers",
    "state_store": "state store, on the loop's side: handing over, waking up",
}
_CALLERS = "the benchmark's own callers and handlers"
_WAITING = "waiting for the writer's thread: checks, SQLite, flush"


def table(seeded: Path, directory: Path, *, callers: int, seconds: float) -> Table:
    """Sample a run of commands with cached states."""
    samples: Counter[str] = Counter()
    load = Load(seeded, directory, cache_size=callers * 1000, callers=callers, seconds=seconds)
    with _sampling(samples, load):
        sample = run_on_fast_loop(load.run())
    total = sum(samples.values())
    per_command = 1e6 / sample.rate
    rows = [
        (layer, f"{count / total:.0%}", f"{count / total * per_command:.1f}") for layer, count in samples.most_common()
    ]
    rows.append(("one command, all in all", "100%", f"{per_command:.1f}"))
    return Table(
        f"Where a command's time goes, {callers} callers, state cached",
        ("part", "of the time", "us a command"),
        tuple(rows),
    )


@contextmanager
def _sampling(samples: Counter[str], load: Load) -> Iterator[None]:
    def note(number: int, frame: FrameType | None) -> None:
        if load.measuring:
            samples[_layer(frame)] += 1

    former = signal.signal(signal.SIGALRM, note)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
        time.sleep(0.01)  # one that was under way


def _layer(frame: FrameType | None) -> str:
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(_EVENTO):
            name = file.relative_to(_EVENTO).parts[0]
            return _LAYERS.get(name, name)
        if frame.f_code is run_on_fast_loop.__code__:
            return _WAITING
        if file.parent == _HERE:
            return _CALLERS
        frame = frame.f_back
    return _WAITING
