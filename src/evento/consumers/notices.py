"""What the log says of a consumer at work."""

from __future__ import annotations

import logging

from evento.components import HandlerDefinition, Role
from evento.consumers.dead_events import summary_of
from evento.consumers.port import ConsumerId
from evento.consumers.signals import Signals
from evento.consumers.status import Standing
from evento.messages import EventRecord

__all__ = ["Notices"]

logger = logging.getLogger("evento.consumers")


class Notices:
    """Says the same of every consumer, whether it handles events in order or side by side."""

    def __init__(self, consumer: ConsumerId, role: Role, *, standing: Standing, signals: Signals) -> None:
        self._consumer = consumer
        self._role = role
        self._standing = standing
        self._signals = signals

    def head_reached(self) -> None:
        """Take note that the head is reached, and say so the first time."""
        if not self._standing.head_reached.is_set():
            self._standing.head_reached.set()
            logger.info(
                "%s head reached: %s - Version: %d - Context: %s",
                self._role.value, self._consumer.component, self._consumer.version, self._consumer.context,
            )  # fmt: skip

    def cannot_read(self, error: BaseException, delay: float) -> None:
        """Say that the event store does not answer."""
        logger.warning("%s cannot read the event store (again in %.1f s): %s", self._consumer, delay, error)

    def cannot_note(self, problem: BaseException) -> None:
        """Say that the consumer state store did not take the last error."""
        logger.warning("%s could not write down its last error: %s", self._consumer, problem)

    def failed(
        self, event: EventRecord, handler: HandlerDefinition, error: BaseException, *, attempts: int, delay: float
    ) -> None:
        """Say that an attempt has failed, and when the next one comes."""
        logger.warning(
            "%s: %s of %s at position %d failed (attempt %d, again in %.2f s): %s",
            self._consumer, handler.name, event.name, event.position, attempts, delay, summary_of(error),
        )  # fmt: skip

    def parked(self, event: EventRecord, key: str | None, error: BaseException, *, attempts: int) -> None:
        """Say that an event is dead, and what waits behind it."""
        logger.error(
            "%s: %s at position %d is in the dead event queue after %s%s: %s",
            self._consumer, event.name, event.position, "1 attempt" if attempts == 1 else f"{attempts} attempts",
            "" if key is None else f"; later events of {key} wait behind it", summary_of(error),
            exc_info=error,
        )  # fmt: skip

    def paused(self, position: int) -> None:
        """Say that the consumer is paused, and why."""
        if self._signals.paused:
            logger.warning("%s is paused, on request, at position %d", self._consumer, position)
            return
        logger.error(
            "%s has paused itself after %d dead events without a success in between (last: %s): mend the cause, then "
            "resume it, or restart the bundle",
            self._consumer, self._standing.dead_streak, self._standing.last_error,
        )  # fmt: skip
