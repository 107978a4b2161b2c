"""What the verbs that read a server's settings have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from evento.cli.errors import CommandFailed, WrongUse

if TYPE_CHECKING:
    from evento.server import ServerSettings

__all__ = ["needing_extra", "settings_of"]

_EXTRA = {"bcrypt", "litestar", "prometheus_client", "uvicorn"}


@contextmanager
def needing_extra() -> Iterator[None]:
    """Say what to install when a package of the extra is missing.

    :raises CommandFailed: one is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise CommandFailed(f"this needs the package {error.name}: pip install 'evento-framework[server]'") from None


def settings_of(options: Mapping[str, str], *, environ: Mapping[str, str], file: Path | None) -> ServerSettings:
    """Return a server's settings from all their sources.

    :raises WrongUse: a setting is unknown, or cannot work.
    """
    from evento.server.config import read_settings
    from evento.server.errors import ConfigurationError

    try:
        return read_settings(options, environ=environ, file=file)
    except ConfigurationError as error:
        raise WrongUse(str(error)) from None
