"""Samples: what the instances of all bundles publish once a second, brought into the telemetry."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self

import msgspec

from evento.gateway.nats import Delivery, NatsConnection, Subscription, untoken
from evento.messages.registration import Sample
from evento.server.telemetry import OTHER, ConsumerKey, ConsumerState, HandlerKey, Telemetry

__all__ = ["Samples"]

logger = logging.getLogger("evento.server.telemetry")

_NOT_AT_WORK = {"standby", "starting", "stopped"}
_STATES = {"running", "retrying", "paused"}
_decoder = msgspec.msgpack.Decoder(Sample)


class Samples:
    """Listens from entering to leaving. Every server of a cluster hears all samples, so each shows the whole cluster.

    Whose sample it is is said by its subject, which NATS lets only that bundle publish.
    """

    def __init__(self, connection: NatsConnection, telemetry: Telemetry) -> None:
        self._connection = connection
        self._telemetry = telemetry
        self._prefix = f"{connection.subjects.prefix}.telemetry."
        self._subscription: Subscription | None = None
        self.malformed = 0

    async def __aenter__(self) -> Self:
        """Start listening."""
        self._subscription = await self._connection.subscribe(f"{self._prefix}>", self._heard)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    def _heard(self, delivery: Delivery) -> None:
        try:
            bundle = untoken(delivery.subject.removeprefix(self._prefix).partition(".")[0])
            sample = _decoder.decode(delivery.data)
        except (ValueError, msgspec.MsgspecError) as error:
            self.malformed += 1
            logger.debug("a sample on %s cannot be read: %s", delivery.subject, error)
            return
        for handler in sample.handlers:
            key = HandlerKey(bundle, handler.handler, handler.payload)
            self._telemetry.handled(
                key,
                number=handler.count,
                failed=handler.errors,
                seconds=handler.seconds,
                slowest=handler.slowest,
            )
        for consumer in sample.consumers:
            if consumer.state in _NOT_AT_WORK:
                continue  # another replica tells of it
            self._telemetry.consumer(
                ConsumerKey(bundle, consumer.component, consumer.version, consumer.context),
                ConsumerState(
                    consumer.lag_events,
                    consumer.lag_seconds,
                    consumer.dead,
                    consumer.waiting,
                    position=consumer.position,
                    state=consumer.state if consumer.state in _STATES else OTHER,
                ),
            )
