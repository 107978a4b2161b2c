"""The remote adapter does what every System State Store must do, over a real NATS server and a real store behind it."""

from __future__ import annotations

import pytest

from evento.gateway.nats import NatsConnection
from evento.state_store.remote import RemoteStateStore
from evento.testing.conformance.state_store import StateStoreConformance
from evento.testing.conformance.state_store.support import Factory


class TestOverNats(StateStoreConformance):
    @pytest.fixture
    def factory(self, connection: NatsConnection) -> Factory:
        return lambda: RemoteStateStore(connection)
