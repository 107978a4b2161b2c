"""The registry: which instances of which bundles live, who handles what, and the catalogue of all that they told."""

from evento.server.registry.database import RegistryDatabase
from evento.server.registry.engine import probe_tables
from evento.server.registry.service import RegistryService

__all__ = ["RegistryDatabase", "RegistryService", "probe_tables"]
