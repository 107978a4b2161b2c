"""What a bundle stands on: a message bus and a System State Store, in its own process or in a cluster."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

from evento.bundle.sampling import Publish
from evento.consumers import ConsumerGroup
from evento.gateway import MessageBus
from evento.messages.registration import BundleDescription
from evento.state_store import StateStore

__all__ = ["Backend"]


class Backend(Protocol):
    """Bus and store of one run of a bundle; an async context manager that opens and closes them.

    ``bus`` may be used for :meth:`~evento.gateway.MessageBus.serve` from the beginning; others reach the handlers from
    :meth:`enable` to :meth:`disable`. ``sole_owner`` tells that no other process can have consumers on this store.
    """

    sole_owner: ClassVar[bool]

    @property
    def bus(self) -> MessageBus:
        """Carries the bundle's requests, and those for its handlers."""
        ...

    def consumer_state_url(self, given: str | None) -> str | None:
        """Return where the consumers' places are kept: what was given, or the default; None: there is none.

        :raises DefinitionError: it cannot be kept there.
        """
        ...

    async def __aenter__(self) -> Self:
        """Open."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        ...

    async def join(self, description: BundleDescription) -> StateStore:
        """Make the bundle known, which others do not reach yet, and return the open store.

        :raises DefinitionError: another bundle handles one of its commands or queries.
        """
        ...

    def operated(self, consumers: ConsumerGroup) -> AbstractAsyncContextManager[Any]:
        """Let the operators of the system see and direct the consumers, from entering to leaving."""
        ...

    async def enable(self) -> None:
        """Let others reach the handlers."""
        ...

    async def disable(self) -> None:
        """Take no further request of others."""
        ...

    @property
    def publish_sample(self) -> Publish | None:
        """Sends what the instance measured to those who keep it; None where nobody does."""
        ...
