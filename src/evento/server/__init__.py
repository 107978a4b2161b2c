"""Evento Server: what bundles in many processes share.

It knows payload names and bytes, never user classes: nothing here imports bundles, components or consumers.
"""

from evento.server.errors import ConfigurationError, ServerError
from evento.server.settings import ServerSettings

__all__ = ["ConfigurationError", "ServerError", "ServerSettings"]
