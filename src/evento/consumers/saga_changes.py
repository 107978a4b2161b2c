"""SagaChanges: the sagas of one tenure, with what has changed in them since the last checkpoint."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from evento.consumers.port import ConsumerId, ConsumerStateStore, SagaChange, StoredSaga

__all__ = ["SagaChanges"]

NONE: frozenset[str] = frozenset()
MAX_KNOWN = 10_000
MAX_KNOWN_BYTES = 4096
"""Larger states are read again each time."""


@dataclass(slots=True)
class _Changed:
    state: bytes | None
    stored: frozenset[str]
    """The associations that the store knows."""
    current: frozenset[str]


class SagaChanges:
    """Finds sagas by their associations, first among those that the next checkpoint will write.

    Only the holder of the lease changes sagas, so nobody else has newer ones, and what was read or written stays known
    for the tenure, within bounds.
    """

    def __init__(self, store: ConsumerStateStore, consumer: ConsumerId) -> None:
        self._store = store
        self._consumer = consumer
        self._changed: dict[str, _Changed] = {}
        self._owners: dict[str, StoredSaga | None] = {}
        self._known: OrderedDict[str, StoredSaga | None] = OrderedDict()

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
        if association in self._known:
            self._known.move_to_end(association)
            return self._known[association]
        saga = await self._store.find_saga(self._consumer, association)
        self._keep(association, saga)
        return saga

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
        for association, saga in self._owners.items():
            self._keep(association, saga)
        self._owners.clear()

    def drop(self) -> None:
        """Forget what has changed: the events since the last checkpoint will be handled again."""
        self._changed.clear()
        self._owners.clear()
        self._known.clear()

    def _keep(self, association: str, saga: StoredSaga | None) -> None:
        """Remember who has an association."""
        self._known.pop(association, None)
        if saga is None or len(saga.state) <= MAX_KNOWN_BYTES:
            self._known[association] = saga
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)

    def _change(self, id: str, state: bytes | None, before: frozenset[str], after: frozenset[str]) -> None:
        self._owners.update(dict.fromkeys(before - after))
        changed = self._changed.get(id)
        if changed is None:
            self._changed[id] = _Changed(state, stored=before, current=after)
        else:
            changed.state, changed.current = state, after
