"""An aggregate's state: taken from the cache, or loaded from snapshot and events, and kept after each append."""

from __future__ import annotations

import logging
from typing import Any, cast

import msgspec

from evento.bundle.boundaries import Hold
from evento.bundle.cache import CachedState, StateCache
from evento.bundle.fingerprint import state_fingerprint
from evento.bundle.folding import Folder
from evento.components import ComponentDefinition
from evento.errors import AggregateDeleted, EventoError, PayloadError
from evento.messages import DomainCommand, EventRecord, from_micros, now_micros
from evento.state_store import Snapshot, StateStore, Story, story_parts

__all__ = ["AggregateStates", "deleted_error"]

logger = logging.getLogger("evento.aggregates")


class AggregateStates:
    """Loads and keeps the states of one aggregate component."""

    def __init__(
        self, definition: ComponentDefinition, folder: Folder, *, store: StateStore, cache: StateCache
    ) -> None:
        self._definition = definition
        self._folder = folder
        self._store = store
        self._cache = cache
        self._fingerprint = state_fingerprint(definition) if definition.snapshot_frequency >= 0 else None

    async def load(
        self, command: DomainCommand[Any], aggregate_id: str, hold: Hold | None, *, base: CachedState | None = None
    ) -> CachedState:
        """Return the aggregate's state; its entry is out of the cache until :meth:`keep` puts it back.

        :param base: a former state, which only the events behind it are folded into, instead of one from the cache.

        Under a boundary that is not the aggregate itself, ``hold.version`` is set to the boundary's version, read in
        the same instant as the state.
        """
        replay_all = command.invalidate_aggregate_snapshot
        entry = self._cache.take((self._definition.name, aggregate_id))
        if base is not None:
            entry, replay_all = base, False
        elif command.invalidate_aggregate_caches or replay_all:
            entry = None
        own = hold is None or hold.boundary == aggregate_id
        if base is None and entry is not None and own and entry.boundary_version is not None:
            return entry
        async for story in story_parts(
            self._store,
            aggregate_id,
            boundary=aggregate_id if hold is None else hold.boundary,
            fingerprint=None if replay_all or entry is not None else self._fingerprint,
            after_version=0 if entry is None else entry.version,
        ):
            if story.deleted_at is not None:
                raise deleted_error(aggregate_id, story.deleted_at)
            entry = self._folded(story, entry)
        entry = cast(CachedState, entry)  # a story has at least one part
        if hold is not None and not own:
            hold.version = story.boundary_version
            entry.boundary_version = None
        return entry

    async def is_current(self, aggregate_id: str, entry: CachedState) -> bool:
        """Whether no event has been stored behind the back of a state; asked before a command is rejected on it.

        An append would notice. Behind the cache's back come commands without a lock, and those of other processes.
        """
        if entry.confirmed:
            return True
        story = await self._store.story(aggregate_id, after_version=entry.version, max_bytes=0)
        return story.version == entry.version

    async def keep(
        self, aggregate_id: str, entry: CachedState, state: Any, record: EventRecord, *, boundary_version: int | None
    ) -> None:
        """Put a state back after the append of ``record``, with a snapshot when one is due.

        :param entry: what the event was decided on.
        :param state: the state after the event.
        :param boundary_version: the aggregate's own boundary version, None where it is not known.
        """
        follows = record.version == entry.version + 1
        if not follows or (state is not None and state.deleted):
            return  # deleted, or decided without a lock while others stored events that this state misses
        due = 0 <= self._definition.snapshot_frequency <= entry.since_snapshot
        entry.state = state
        entry.version += 1
        entry.boundary_version = boundary_version
        entry.since_snapshot += 1
        if due and await self._snapshot(aggregate_id, entry):
            entry.since_snapshot = 0
        self._cache.put((self._definition.name, aggregate_id), entry)

    def _folded(self, story: Story, known: CachedState | None) -> CachedState:
        """Return the state after a part of a story; ``known`` is the one before it, where there is one."""
        if known is not None:
            state, since = known.state, known.since_snapshot
        else:
            state, since = None if story.snapshot is None else self._restored(story.snapshot), 0
        state = self._folder.replay(state, story.events)
        return CachedState(
            state,
            version=story.told,
            boundary_version=story.boundary_version,
            since_snapshot=since + len(story.events),
        )

    def _restored(self, snapshot: Snapshot) -> Any:
        try:
            return msgspec.json.decode(snapshot.state, type=cast(type, self._definition.state))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise PayloadError(
                f"the snapshot of {snapshot.aggregate_id!r} at version {snapshot.version} cannot be read: {error}; "
                f"raise snapshot_version of {self._definition.name} to replay from the events",
                aggregate_id=snapshot.aggregate_id,
            ) from error

    async def _snapshot(self, aggregate_id: str, entry: CachedState) -> bool:
        """Keep a snapshot; a failure costs time at the next load, so it is logged and the command stands."""
        try:
            data = msgspec.json.encode(entry.state)
            if msgspec.json.decode(data, type=cast(type, self._definition.state)) != entry.state:
                raise PayloadError("the state does not survive JSON: give its fields types that do")
            snapshot = Snapshot(
                aggregate_id=aggregate_id,
                version=entry.version,
                fingerprint=cast(str, self._fingerprint),
                state=data,
                updated_at=now_micros(),
            )
            return await self._store.snapshot(snapshot)
        except (EventoError, TypeError, ValueError, RecursionError) as error:
            logger.warning("no snapshot of %s at version %d: %s", aggregate_id, entry.version, error)
            return False


def deleted_error(aggregate_id: str, deleted_at: int | None) -> AggregateDeleted:
    """Return the error for a command to a deleted aggregate."""
    when = "" if deleted_at is None else f" since {from_micros(deleted_at).isoformat()}"
    return AggregateDeleted(
        f"{aggregate_id!r} is deleted{when}: it takes no further command", aggregate_id=aggregate_id
    )
