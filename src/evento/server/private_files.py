"""Files that hold secrets: readable by their owner alone, replaced as a whole, changed by one process at a time."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evento.server.errors import ServerError

__all__ = ["locked", "make_folder", "read_private", "write_private"]


def read_private(path: Path) -> bytes | None:
    """Return what is in a file; None when there is no file.

    :raises ServerError: others may read it, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise ServerError(f"{path} holds secrets and others may read it (mode {mode:03o}): chmod 600 {path}")
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ServerError(f"{path} cannot be read: {error.strerror}") from None


def write_private(path: Path, data: bytes) -> None:
    """Replace a file by ``data``, mode 0600: a reader sees the old or the new one, also after a crash.

    :raises ServerError: it cannot be written.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # made with mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise ServerError(f"{path} cannot be written: {error.strerror}") from None


def make_folder(path: Path) -> None:
    """Make a folder that only its owner may enter; one that is there stays as it is.

    :raises ServerError: it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ServerError(f"the folder {path} cannot be made: {error.strerror}") from None


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of ``path`` (a file ``PATH.lock`` beside it) against other processes.

    :raises BlockingIOError: another process holds it, and ``wait`` is False.
    :raises ServerError: the lock cannot be made.
    """
    lock = path.with_name(f"{path.name}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ServerError(f"{lock} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
