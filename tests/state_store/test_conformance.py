"""The SQLite adapter does what every System State Store must do, in a file and in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from evento.state_store.sqlite import SqliteStateStore
from evento.testing.conformance.state_store import StateStoreConformance
from evento.testing.conformance.state_store.support import Factory


class TestInAFile(StateStoreConformance):
    @pytest.fixture
    def factory(self, tmp_path: Path) -> Factory:
        return lambda: SqliteStateStore(tmp_path / "events.db")


class TestInMemory(StateStoreConformance):
    durable = False

    @pytest.fixture
    def factory(self) -> Factory:
        return lambda: SqliteStateStore(None)
