"""A gateway that asks for tokens, and plain clients of it: NATS's own Python client, which knows nothing of Evento."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import nats

from evento.server.nats_server import NatsServer
from evento.server.settings import ServerSettings
from evento.server.tokens import TokenFile

__all__ = ["Gateway"]


@dataclass
class Gateway:
    """A nats-server that asks for tokens."""

    settings: ServerSettings
    server: NatsServer
    secrets: dict[str, str] = field(default_factory=dict)

    @property
    def tokens(self) -> TokenFile:
        return TokenFile(self.settings.token_file)

    def allow(self, bundle: str, *serves: str) -> None:
        self.secrets[bundle] = self.tokens.create(bundle, serves=serves or None)

    @asynccontextmanager
    async def client(self, user: str, password: str | None = None) -> AsyncIterator[Any]:
        """A connection of a user; the errors that NATS reports to it are in ``client.refusals``."""
        refusals: list[str] = []

        async def told(error: Exception) -> None:
            refusals.append(str(error))

        client: Any = await nats.connect(
            f"nats://{self.settings.gateway}",
            user=user,
            password=self.secrets[user] if password is None else password,
            inbox_prefix=f"evento.shop.inbox.{user}.1".encode(),
            allow_reconnect=False,
            error_cb=told,
        )
        client.refusals = refusals
        try:
            yield client
        finally:
            await client.close()
