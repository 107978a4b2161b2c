"""The System State Store over the message gateway: a server keeps it, bundles reach it by requests."""

from evento.state_store.remote.store import RemoteStateStore

__all__ = ["RemoteStateStore"]
