"""The System State Store on SQLite: one file (or memory), one writing process, group commit."""

from evento.state_store.sqlite.store import SqliteStateStore

__all__ = ["SqliteStateStore"]
