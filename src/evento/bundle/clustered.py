"""The backend of a cluster: requests travel over NATS, and a server keeps the store."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, ClassVar, Self

from evento.bundle.address import ClusterServers
from evento.bundle.administration import AdministrationService
from evento.bundle.membership import Membership
from evento.bundle.sampling import Publish
from evento.consumers import ConsumerGroup
from evento.errors import DefinitionError
from evento.gateway.local_first import LocalFirstBus
from evento.gateway.nats import ClusterClock, NatsBus, NatsConnection
from evento.gateway.nats.calls import encode
from evento.messages import new_id
from evento.messages.registration import BundleDescription, ConsumerSample, HandlerSample, Sample
from evento.state_store import StateStore
from evento.state_store.remote import RemoteStateStore

__all__ = ["ClusterBackend"]

logger = logging.getLogger("evento.bundle")


class ClusterBackend:
    """One connection to the servers of a cluster, and what goes over it.

    :param token: proves the bundle; None where the servers ask for none.
    :param tls: what to trust: True for the system's authorities, the path of a CA file, or a context.
    :param handler_grace: seconds for which a request waits for a handler to appear.
    :param start_timeout: seconds to wait for a server at the start; None: for ever.
    """

    sole_owner: ClassVar[bool] = False

    def __init__(
        self,
        servers: ClusterServers,
        *,
        bundle_id: str,
        cluster: str,
        token: str | None,
        tls: ssl.SSLContext | str | bool | None,
        handler_grace: float,
        start_timeout: float | None,
    ) -> None:
        self._bundle_id = bundle_id
        self._start_timeout = start_timeout
        self._instance_id = new_id()
        self._clock = ClusterClock()
        self._connection = NatsConnection(
            servers.urls,
            cluster=cluster,
            user=bundle_id,
            instance=self._instance_id,
            token=token,
            tls=_context(tls),
            start_timeout=start_timeout,
            progress=lambda text: logger.warning("%s", text),
        )
        self._remote = NatsBus(self._connection, clock=self._clock, handler_grace=handler_grace)
        self.bus = LocalFirstBus(self._remote)
        self._membership: Membership | None = None
        self._exit = AsyncExitStack()

    def consumer_state_url(self, given: str | None) -> str | None:
        """Return what was given: in a cluster there is no place of which every replica knows."""
        return given

    async def __aenter__(self) -> Self:
        """Connect to a server."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._connection)
            await stack.enter_async_context(self._remote)
            self._exit = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Leave, and close the connection."""
        await self._exit.aclose()

    async def join(self, description: BundleDescription) -> StateStore:
        """Register the bundle and open the servers' store."""
        self._membership = await self._exit.enter_async_context(
            Membership(
                self._connection,
                description,
                instance_id=self._instance_id,
                clock=self._clock,
                start_timeout=self._start_timeout,
                refused=self.bus.disable,
                accepted=self.bus.enable,
            )
        )
        return await self._exit.enter_async_context(RemoteStateStore(self._connection))

    def operated(self, consumers: ConsumerGroup) -> AbstractAsyncContextManager[Any]:
        """Answer servers and the administrator about the consumers."""
        return AdministrationService(
            self._connection, consumers.administration, bundle_id=self._bundle_id, instance_id=self._instance_id
        )

    async def enable(self) -> None:
        """Serve the handlers to others, then tell the servers so."""
        # The registration was acknowledged in join(). In the other order an instance that is shown as enabled could
        # still be deaf, and who stops its replica then, in a rolling restart, would leave requests without a handler.
        await self.bus.enable()
        if self._membership is not None:
            await self._membership.enable()

    async def disable(self) -> None:
        """Tell the servers, then take no further request of others."""
        if self._membership is not None:
            await self._membership.disable()
        await self.bus.disable()

    @property
    def publish_sample(self) -> Publish:
        """Publish to all servers."""
        return self._publish_sample

    def _publish_sample(
        self, seconds: float, handlers: Sequence[HandlerSample], consumers: Sequence[ConsumerSample]
    ) -> bool:
        if self._membership is None or not (self._connection.is_connected and self._connection.is_writable):
            return False
        session = self._membership.session
        sample = Sample(session, seconds, tuple(handlers), tuple(consumers), in_flight=self._connection.in_flight)
        subject = self._connection.subjects.telemetry(session.bundle_id, session.instance_id)
        self._connection.publish(subject, encode(sample))
        return True


def _context(tls: ssl.SSLContext | str | bool | None) -> ssl.SSLContext | None:
    match tls:
        case None | False:
            return None
        case True:
            return ssl.create_default_context()
        case str():
            try:
                return ssl.create_default_context(cafile=tls)
            except OSError as error:
                raise DefinitionError(
                    f"tls={tls!r}: the file of trusted certificates cannot be read ({error})"
                ) from error
        case _:
            return tls
