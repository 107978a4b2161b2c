"""The lock that keeps two writers from one database file.

It is an advisory lock of the operating system (``flock``) on a file beside the database, so it ends with its process,
however that ends. The lock file stays: removing it would let two processes lock two files of one name.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from evento.errors import StoreInUse, StoreUnavailable

__all__ = ["FileLock"]


class FileLock:
    """Holds ``<database>-lock`` until it is closed.

    :raises StoreInUse: another process, or another store of this one, holds it; the message names the process.
    """

    def __init__(self, database: Path) -> None:
        path = database.with_name(f"{database.name}-lock")
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StoreUnavailable(
                f"{database}: cannot make the lock file {path}: {error.strerror}: its folder must exist and be writable"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.truncate(self._file, 0)
            os.write(self._file, b"%d\n" % os.getpid())
        except BlockingIOError as error:
            holder = os.read(self._file, 32).decode(errors="replace").strip()
            os.close(self._file)
            raise _in_use(database, holder) from error
        except OSError as error:
            os.close(self._file)
            raise StoreUnavailable(f"{database}: cannot lock {path}: {error.strerror}") from error

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._file)


def _in_use(database: Path, holder: str) -> StoreInUse:
    if holder == str(os.getpid()):
        who = f"another bundle of this process ({holder})"
    else:
        who = f"process {holder}" if holder else "another process"
    return StoreInUse(
        f"{database} is in use by {who}: stop it, or use another file (one bundle at a time has a store's file)",
        path=str(database),
        pid=int(holder) if holder.isdigit() else None,
    )
