"""The PostgreSQL adapter does what every System State Store must do."""

from __future__ import annotations

import pytest

from evento.state_store.postgres import PostgresStateStore
from evento.testing.conformance.state_store import StateStoreConformance
from evento.testing.conformance.state_store.support import Factory
from evento.testing.postgres import PostgresServer


class TestPostgres(StateStoreConformance):
    @pytest.fixture
    def factory(self, postgres: PostgresServer, postgres_schema: str) -> Factory:
        return lambda: PostgresStateStore(postgres.url, schema=postgres_schema)
