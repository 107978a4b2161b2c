"""Real stores: an event store and a consumer state store for each test, both in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from streams import make_rows

from evento.consumers import SqlConsumerStateStore
from evento.state_store import StateStore
from evento.state_store.sqlite import SqliteStateStore


@pytest.fixture
async def events() -> AsyncIterator[StateStore]:
    """The event store."""
    async with SqliteStateStore(None) as store:
        yield store


@pytest.fixture
async def state() -> AsyncIterator[SqlConsumerStateStore]:
    """The consumer state store, with the table of RowProjector."""
    async with SqlConsumerStateStore("sqlite+aiosqlite://") as store:
        await make_rows(store)
        yield store
