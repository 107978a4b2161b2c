"""SagaChanges: the sagas of one tenure, with what has changed in them since the last checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from evento.consumers.port import ConsumerId, ConsumerStateStore, SagaChange, StoredSaga

__all__ = ["SagaChanges"]

NONE: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Changed:
    state: bytes | None
    stored: frozenset[str]
    """The associations that the store knows."""
    current: frozenset[str]


class SagaChanges:
    """Finds sagas by their associations, first among those that the next checkpoint will write.

    Only the holder of the lease changes sagas, so nobody else has newer ones.
    """

    def __init__(self, store: ConsumerStateStore, consumer: ConsumerId) -> None:
        self._store = store
        self._consumer = consumer
        self._changed: dict[str, _Changed] = {}
        self._owners: dict[str, StoredSaga | None] = {}

    @property
    def pending(self) -> list[SagaChange]:
        """What the next checkpoint has to write."""
        return [
            SagaChange(id, changed.state, changed.current - changed.stored, changed.stored - changed.current)
            for id, changed in self._changed.items()
        ]

    async def find(self, association: str) -> StoredSaga | None:
        """Return the saga that has an association."""
        if association in self._owners:
            return self._owners[association]
        return await self._store.find_saga(self._consumer, association)

    def put(self, id: str, state: bytes, *, before: frozenset[str], after: frozenset[str]) -> None:
        """Take the new state of a saga, whose associations were ``before`` and are ``after``."""
        self._change(id, state, before, after)
        saga = StoredSaga(id, state)
        self._owners.update(dict.fromkeys(after, saga))

    def remove(self, id: str, *, before: frozenset[str]) -> None:
        """Take note that a saga has ended."""
        self._change(id, None, before, NONE)

    def committed(self) -> None:
        """Take note that the checkpoint has written everything."""
        self._changed.clear()
        self._owners.clear()

    drop = committed
    """Forget what has changed: the events since the last checkpoint will be handled again."""

    def _change(self, id: str, state: bytes | None, before: frozenset[str], after: frozenset[str]) -> None:
        self._owners.update(dict.fromkeys(before - after))
        changed = self._changed.get(id)
        if changed is None:
            self._changed[id] = _Changed(state, stored=before, current=after)
        else:
            changed.state, changed.current = state, after
