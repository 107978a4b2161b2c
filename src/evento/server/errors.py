"""Why a server does not start."""

from __future__ import annotations

from evento.errors import DefinitionError, EventoError

__all__ = ["ConfigurationError", "ServerError"]


class ConfigurationError(DefinitionError):
    """A setting is unknown, or has a value that cannot work; names the setting, where it stands and the mend."""


class ServerError(EventoError):
    """Something that the server needs is not there: a program, a port, a file, a database."""
