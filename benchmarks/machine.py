"""The machine that the figures were taken on: without it they mean nothing."""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

from figures import Table

__all__ = ["describe", "table"]

_PACKAGES = ("evento-framework", "eventsourcing", "msgspec", "uvloop", "sqlalchemy", "aiosqlite")
_IN_MEMORY = {"tmpfs", "ramfs"}


def describe(directory: Path, *, flushes: int = 500) -> dict[str, str]:
    """Describe processor, memory, file system, time of a flush, and versions; ``directory`` is where the stores lie."""
    mount = _mount(directory)
    facts = {
        "processor": f"{_cpu_model()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores usable{_virtual()}",
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "file system": f"{mount[1]} on {mount[0]}" + (", IN MEMORY: a flush costs nothing" * (mount[1] in _IN_MEMORY)),
        "flush": _flush(directory, flushes),
        "Python": f"{platform.python_implementation()} {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}",
    }
    for package in _PACKAGES:
        facts[package] = _version(package)
    facts["load before the run"] = f"{os.getloadavg()[0]:.2f}"
    return facts


def table(facts: dict[str, str]) -> Table:
    """Return the description as a table."""
    return Table("The machine", ("what", "value"), tuple(facts.items()))


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def _virtual() -> str:
    return " (virtual machine)" if " hypervisor " in Path("/proc/cpuinfo").read_text() else ""


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"


def _mount(directory: Path) -> tuple[str, str]:
    """Return device and type of the file system that a directory is on."""
    best = ("", "unknown", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        device, point, kind = line.split()[:3]
        if directory.resolve().is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, device, kind)
    return best[1], best[2]


def _flush(directory: Path, count: int) -> str:
    """Time one write of 4 KiB and its fdatasync, in a file that has its full size already."""
    page = os.urandom(4096)
    times = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        number = file.fileno()
        os.posix_fallocate(number, 0, count * len(page))
        os.fsync(number)
        for index in range(count):
            begin = perf_counter()
            os.pwrite(number, page, index * len(page))
            os.fdatasync(number)
            times.append(perf_counter() - begin)
    times.sort()
    return f"4 KiB and fdatasync: p50 {times[count // 2] * 1e6:.0f} us, p99 {times[count * 99 // 100] * 1e6:.0f} us"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
