"""The processes of the distributed benchmark: started on loopback, asked what they need and have seen, ended again."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec
import psycopg
from psycopg import sql

from evento.server.nats_binary import find_nats_server

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "support"))
from evento.testing.postgres import PostgresServer, start_postgres

__all__ = ["Process", "Role", "a_nats_server", "a_postgres", "databases"]

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_ROLES = Path(__file__).with_name("roles.py")
_NATS_CONFIG = """
listen: "127.0.0.1:-1"
ports_file_dir: "{folder}"
max_payload: 9MB
max_pending: 64MB
"""


class Process:
    """A process by its id: what it has used so far. ``children`` counts its child processes in."""

    def __init__(self, pid: int, *, children: bool = False) -> None:
        self.pid = pid
        self._children = children

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used."""
        return sum(_cpu_seconds(pid) for pid in (_family(self.pid) if self._children else [self.pid]))

    def resident_mib(self) -> float:
        """Return its memory, in MiB."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE / 2**20


class Role(Process):
    """A process that plays a role of :mod:`roles`, from ``with`` to its end."""

    def __init__(self, role: str, **options: str | bool) -> None:
        words = [word for name, value in options.items() for word in _words(name, value)]
        self._role = role
        self._process = subprocess.Popen(
            [sys.executable, str(_ROLES), role, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._unread = b""
        super().__init__(self._process.pid)

    def __enter__(self) -> Self:
        self._read(60.0)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(30.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def ask(self, do: str, *, timeout: float = 330.0, **rest: Any) -> Any:
        """Tell it to do something, and return its answer."""
        self.tell(do, **rest)
        return self.answer(timeout)

    def tell(self, do: str, **rest: Any) -> None:
        """Tell it to do something; its :meth:`answer` is read later."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode({"do": do, **rest}) + b"\n")
        self._process.stdin.flush()

    def answer(self, timeout: float = 30.0) -> Any:
        """Return the next answer."""
        return self._read(timeout)

    def _read(self, timeout: float) -> Any:
        assert self._process.stdout is not None
        number = self._process.stdout.fileno()
        until = monotonic() + timeout
        while b"\n" not in self._unread:
            if not select.select([number], [], [], max(0.0, until - monotonic()))[0]:
                raise SystemExit(f"the {self._role} did not answer within {timeout:g} s")
            data = os.read(number, 1 << 20)
            if not data:
                raise SystemExit(f"the {self._role} has ended with {self._process.wait()}: see above")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return msgspec.json.decode(line)


@contextmanager
def a_nats_server() -> Iterator[tuple[str, Process]]:
    """Run a nats-server; give its URL and its process."""
    with tempfile.TemporaryDirectory(prefix="evento-nats-") as name, ExitStack() as stack:
        folder = Path(name)
        config = folder / "nats.conf"
        config.write_text(_NATS_CONFIG.format(folder=folder))
        log = stack.enter_context((folder / "log").open("wb"))
        process = subprocess.Popen([str(find_nats_server()), "-c", str(config)], stdout=log, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        until = monotonic() + 20
        while not (found := list(folder.glob("*.ports"))) or not found[0].read_bytes().endswith(b"}"):
            if monotonic() > until or process.poll() is not None:
                raise SystemExit(f"nats-server does not start: {(folder / 'log').read_text()}")
            sleep(0.02)
        yield msgspec.json.decode(found[0].read_bytes())["nats"][0], Process(process.pid)


@contextmanager
def a_postgres(directory: Path) -> Iterator[PostgresServer]:
    """Run a PostgreSQL server whose data lie in a directory, or where its user can get at them on the same disk."""
    if not os.geteuid() and not all(folder.stat().st_mode & 0o001 for folder in directory.resolve().parents):
        directory = Path("/var/tmp")  # PostgreSQL refuses to run as root, and another user must get in
    with tempfile.TemporaryDirectory(prefix="evento-postgres-", dir=directory) as name:
        folder = Path(name)
        folder.chmod(0o755)
        if directory != Path("/var/tmp"):
            directory.chmod(0o755)
        server = start_postgres(folder)
        try:
            yield server
        finally:
            server.stop()


def databases(server: PostgresServer, own: str, other: str) -> tuple[str, dict[str, str]]:
    """Make two databases; return the URL of the first, and the environment of the other for the peer."""
    address = urlsplit(server.url)
    assert address.password is not None
    assert address.username is not None
    with psycopg.connect(server.url, autocommit=True) as connection:
        for name in (own, other):
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    env = {
        "POSTGRES_DBNAME": other,
        "POSTGRES_HOST": "127.0.0.1",
        "POSTGRES_PORT": str(server.port),
        "POSTGRES_USER": address.username,
        "POSTGRES_PASSWORD": address.password,
    }
    return server.url_of(address.username, address.password, own), env


def _family(pid: int) -> list[int]:
    """Return a process and its children."""
    found = [pid]
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _words(name: str, value: str | bool) -> list[str]:
    if value is True:
        return [f"--{name}"]
    return [f"--{name}", str(value)] if value else []
