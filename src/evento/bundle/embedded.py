"""The backend of one process: direct calls, and a SQLite file or a store in memory."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Self

from evento.bundle.address import EmbeddedServer
from evento.consumers import ConsumerGroup
from evento.errors import StoreUnavailable
from evento.gateway import InProcessBus
from evento.messages.registration import BundleDescription
from evento.state_store import StateStore
from evento.state_store.sqlite import SqliteStateStore

__all__ = ["EmbeddedBackend"]

logger = logging.getLogger("evento.bundle")


class EmbeddedBackend:
    """Bus and store inside the bundle's process, which owns the store's file."""

    sole_owner: ClassVar[bool] = True

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._exit = AsyncExitStack()
        self.bus = InProcessBus()

    def consumer_state_url(self, given: str | None) -> str:
        """Return what was given, or the second file beside the event store."""
        self._server.refuse_as_consumer_state(given)
        return given or self._server.consumer_state_url

    async def __aenter__(self) -> Self:
        """Nothing is opened before the bundle joins."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the store."""
        await self._exit.aclose()

    async def join(self, description: BundleDescription) -> StateStore:
        """Open the store, making its folder where need be."""
        if self._server.path is not None:
            await asyncio.to_thread(_make_room, self._server.path)
        return await self._exit.enter_async_context(SqliteStateStore(self._server.path))

    def operated(self, consumers: ConsumerGroup) -> AbstractAsyncContextManager[Any]:
        """Nothing is to be done: operators read and write the files."""
        return nullcontext()

    async def enable(self) -> None:
        """Nothing is to be done: nobody else can reach the handlers."""

    async def disable(self) -> None:
        """Nothing is to be done: nobody else can reach the handlers."""

    @property
    def publish_sample(self) -> None:
        """Return None: nobody listens."""
        return


def _make_room(path: Path) -> None:
    """Make the folder of a new event store, and say that it is new: a wrong path would look like lost data."""
    folder = path.parent
    try:
        if not path.exists():
            logger.info("There is no event store at %s yet: a new one is made", path)
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(
            f"{folder}: the folder of the event store cannot be made ({error.strerror}): give another path",
            path=str(folder),
        ) from error
