"""Complaints: why no server answers, told once in a while and not with every attempt."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

from evento.gateway.nats.link import Address

__all__ = ["Complaints"]

logger = logging.getLogger("evento.gateway.nats")

REMIND_SECONDS = 30.0


class Complaints:
    """What is wrong with which server. Each is told when it is news, and again every half minute while it lasts.

    :param progress: is told in words what is waited for; default: the log.
    """

    def __init__(self, progress: Callable[[str], None] | None = None) -> None:
        self._progress = progress
        self._known: dict[Address, str] = {}
        self._told: dict[Address, tuple[str, float]] = {}

    def __str__(self) -> str:
        return "; ".join(f"{address}: {reason}" for address, reason in self._known.items()) or "no answer"

    def add(self, address: Address, error: Exception) -> None:
        """Take note of an attempt that failed."""
        reason = "no answer" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        self._known[address] = reason
        now = monotonic()
        told, at = self._told.get(address, ("", now))
        if told == reason and now - at < REMIND_SECONDS:
            return
        self._told[address] = reason, now
        if self._progress is not None:
            self._progress(f"waiting for an Evento Server at {address}: {reason}")
        else:
            logger.warning("cannot connect to %s: %s", address, reason)

    def clear(self) -> None:
        """Forget all: a server has answered."""
        self._known.clear()
        self._told.clear()
