"""The consumer state store on SQL databases, through SQLAlchemy Core (async)."""

from evento.consumers.sqlalchemy_store.store import SqlConsumerStateStore

__all__ = ["SqlConsumerStateStore"]
