"""A MariaDB server of one's own: on a free port, in a folder, ended with the process that started it.

The programs are ``mariadbd`` and ``mariadb-install-db`` on PATH or in /usr/sbin, from Debian's ``mariadb-server-core``
and ``mariadb-client-core``; nothing of the system's service is used. As root it is started as another user.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ports import free_port

__all__ = ["MariadbMissing", "MariadbServer", "start_mariadb"]

_USER, _PASSWORD = "evento", "evento-test"
_START_SECONDS = 30.0
_STOP_SECONDS = 20.0
# As a user has it, but small; a flush at each commit is MariaDB's default, and what the store relies on.
_SETTINGS = {
    "bind_address": "127.0.0.1",
    "innodb_buffer_pool_size": "64M",
    "innodb_log_file_size": "16M",
    "max_connections": "200",
    "performance_schema": "OFF",
    "skip_name_resolve": "ON",
}


class MariadbMissing(Exception):
    """There is no MariaDB on this machine; the message says how to get one."""


class MariadbServer:
    """A server that runs: ``url`` is that of a user who may do anything."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder / "mariadb.log"
        self._settings = {**_SETTINGS, **settings}
        self._user = None if os.geteuid() else "nobody"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address of the server, without a database, for SQLAlchemy."""
        return self.url_of(_USER, _PASSWORD)

    def url_of(self, user: str, password: str, database: str = "") -> str:
        """Return the address of a database for a user."""
        return f"mysql+asyncmy://{user}:{password}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        """The process id of the server."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def make(self) -> None:
        """Make the system's tables, and a user."""
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        words = ["--no-defaults", f"--datadir={self.folder / 'data'}", "--skip-test-db", "--skip-name-resolve"]
        # Not root, who may only come through the socket.
        made = subprocess.run(
            [_program("mariadb-install-db"), *words, "--auth-root-authentication-method=normal"],
            **self._as_user(),
            capture_output=True,
            text=True,
        )
        if made.returncode:
            raise RuntimeError(f"mariadb-install-db failed: {made.stdout}{made.stderr}")
        user = self.folder / "user.sql"
        user.write_text(  # a statement a line
            f"CREATE USER IF NOT EXISTS '{_USER}'@'%' IDENTIFIED BY '{_PASSWORD}';\n"
            f"GRANT ALL ON *.* TO '{_USER}'@'%' WITH GRANT OPTION;\n"
        )
        user.chmod(0o644)

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        own = {
            "datadir": "data",
            "init_file": "user.sql",
            "pid_file": "mariadb.pid",
            "socket": "mariadb.sock",
            "tmpdir": "",
        }
        options = {name: str(self.folder / path) for name, path in own.items()} | {"port": str(self.port)}
        words = [f"--{name}={value}" for name, value in {**options, **self._settings}.items()]
        begins = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [_program("mariadbd"), "--no-defaults", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,
                start_new_session=True,  # Ctrl-C at the terminal is not for it
                **self._as_user(),
            )
        until = time.monotonic() + _START_SECONDS
        while b"ready for connections" not in self.log.read_bytes()[begins:]:
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"MariaDB does not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop the server, open connections or not; SIGKILL is a crash."""
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {"cwd": str(self.folder)}
        entry = pwd.getpwnam(self._user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": (), "cwd": str(self.folder)}


def start_mariadb(folder: Path, **settings: str) -> MariadbServer:
    """Make a server in an empty folder and start it, with settings (variables) of ``mariadbd``.

    As root, the folder and those above it must be open to other users.

    :raises MariadbMissing: the programs are not there.
    """
    server = MariadbServer(folder, settings)
    server.make()
    server.start()
    return server


def _program(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    # mariadb-install-db needs a program of the client's package.
    if path is None or shutil.which("my_print_defaults") is None:
        raise MariadbMissing("there is no MariaDB server: apt-get install mariadb-server-core mariadb-client-core")
    return path


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
