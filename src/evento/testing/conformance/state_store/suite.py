"""The whole suite, put together from its parts."""

from __future__ import annotations

from evento.testing.conformance.state_store.appending import Appending
from evento.testing.conformance.state_store.boundaries import Boundaries
from evento.testing.conformance.state_store.commands import Commands
from evento.testing.conformance.state_store.deleting import Deleting
from evento.testing.conformance.state_store.group_commit import GroupCommit
from evento.testing.conformance.state_store.lifecycle import Lifecycle
from evento.testing.conformance.state_store.locking import Locking
from evento.testing.conformance.state_store.reading import Reading
from evento.testing.conformance.state_store.searching import Searching
from evento.testing.conformance.state_store.snapshots import Snapshots
from evento.testing.conformance.state_store.stories import Stories
from evento.testing.conformance.state_store.verifying import Verifying

__all__ = ["StateStoreConformance"]


class StateStoreConformance(
    Appending,
    GroupCommit,
    Boundaries,
    Commands,
    Deleting,
    Locking,
    Stories,
    Snapshots,
    Reading,
    Searching,
    Verifying,
    Lifecycle,
):
    """The suite: subclass it and override the fixture ``factory``."""
