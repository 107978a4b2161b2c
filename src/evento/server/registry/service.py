"""RegistryService: answers ``registry.*`` requests, each only to the bundle that it concerns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from evento.errors import AuthenticationError, EventoError, Overloaded, error_to_data
from evento.gateway.nats import Delivery, NatsConnection, Subscription
from evento.gateway.nats.calls import Answer, encode
from evento.gateway.nats.registry import REGISTRY, SessionCall
from evento.gateway.nats.subjects import QUEUE
from evento.messages.registration import Register
from evento.server.registry.database import RegistryDatabase

__all__ = ["RegistryService"]

logger = logging.getLogger("evento.server.registry")

_MAX_RUNNING = 1024

Asker: TypeAlias = tuple[str, str]
"""User and instance."""
Run: TypeAlias = Callable[[Asker, Any], Awaitable[Any]]


class RegistryService:
    """Serves the registry of a cluster; every server of the cluster does, and they share the database.

    Who registers, beats or leaves is told by the subject: NATS lets a bundle send on its own alone. An instance may
    only speak for itself. Without tokens every name is taken on trust, as the whole cluster is.
    """

    def __init__(self, connection: NatsConnection, database: RegistryDatabase) -> None:
        self._connection = connection
        self._database = database
        self._subscriptions: list[Subscription] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.refused = 0

    async def __aenter__(self) -> RegistryService:
        """Start serving."""
        subjects = self._connection.subjects
        of_bundles: dict[str, Run] = {
            "time": lambda asker, call: self._database.time(),
            "register": self._register,
            "enable": lambda asker, call: self._beat(asker, call, True),
            "disable": lambda asker, call: self._beat(asker, call, False),
            "heartbeat": lambda asker, call: self._beat(asker, call, None),
            "leave": self._leave,
        }
        of_all: dict[str, Run] = {
            "view": lambda asker, call: self._database.view(call.bundle_id),
            "catalogue": lambda asker, call: self._database.catalogue(
                after=call.after, max_bytes=self._connection.max_payload // 2
            ),
        }
        try:
            for name, run in of_bundles.items():
                await self._subscribe(subjects.registrations(name), name, run)
            for name, run in of_all.items():
                await self._subscribe(subjects.registry(name), name, run)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Take no further request, and answer what is under way; when this is cancelled, that is cut off."""
        try:
            for subscription in self._subscriptions:
                await subscription.drain()
            if self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            while self._subscriptions:
                await self._subscriptions.pop().unsubscribe()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _subscribe(self, subject: str, name: str, run: Run) -> None:
        serve = self._server(name, run)
        self._subscriptions.append(await self._connection.subscribe(subject, serve, queue=QUEUE))

    # Operations

    async def _register(self, asker: Asker, call: Register) -> Any:
        self._require(asker, call.description.bundle_id, call.instance_id)
        registered = await self._database.register(call)
        logger.info(
            "registered %s v%d, instance %s on %s (session %d)",
            call.description.bundle_id,
            call.description.version,
            call.instance_id,
            call.host,
            registered.session.number,
        )
        return registered

    async def _beat(self, asker: Asker, call: SessionCall, enabled: bool | None) -> Any:
        self._require(asker, call.bundle_id, call.instance_id)
        registered = await self._database.beat(call.session, enabled=enabled, deadline=call.deadline)
        if enabled is not None:
            logger.info("%s %s, instance %s", "enabled" if enabled else "disabled", call.bundle_id, call.instance_id)
        return registered

    async def _leave(self, asker: Asker, call: SessionCall) -> bool:
        self._require(asker, call.bundle_id, call.instance_id)
        has_left = await self._database.leave(call.session, deadline=call.deadline)
        logger.info("%s leaves, instance %s", call.bundle_id, call.instance_id)
        return has_left

    def _require(self, asker: Asker, bundle_id: str, instance_id: str) -> None:
        if asker != (bundle_id, instance_id):
            self.refused += 1
            raise AuthenticationError(
                f"{asker[0]!r} (instance {asker[1]}) spoke for {bundle_id!r} (instance {instance_id}): a bundle "
                "registers under its own name and instance only"
            )

    # Requests

    def _server(self, name: str, run: Run) -> Callable[[Delivery], None]:
        def serve(delivery: Delivery) -> None:
            if len(self._tasks) >= _MAX_RUNNING:
                error = Overloaded(f"registry.{name} was refused: {len(self._tasks)} requests run in this server")
                delivery.respond(encode(Answer[None](error_to_data(error))))
                return
            task = asyncio.create_task(self._serve(name, run, delivery))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return serve

    def _asker(self, name: str, delivery: Delivery) -> Asker:
        subjects = self._connection.subjects
        asker = subjects.inbox_owner(delivery.reply)
        if asker is None:
            raise AuthenticationError(f"registry.{name} was asked without an inbox of the cluster to answer to")
        bundle = subjects.registering(delivery.subject)
        if bundle is not None and bundle != asker[0]:
            self.refused += 1
            raise AuthenticationError(f"{bundle!r} wants registry.{name} to be answered to {asker[0]!r}")
        return asker

    async def _serve(self, name: str, run: Run, delivery: Delivery) -> None:
        try:
            asker = self._asker(name, delivery)
            call = REGISTRY[name].decode_call(delivery.data)
            delivery.respond(encode(Answer(None, await run(asker, call))))
        except EventoError as error:
            logger.warning("registry.%s was refused: %s", name, error)
            delivery.respond(encode(Answer[None](error_to_data(error))))
        except Exception as error:
            logger.exception("registry.%s failed", name)
            delivery.respond(encode(Answer[None](error_to_data(error))))
