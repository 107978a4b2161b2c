"""LeaseKeeper: renews the lease of a consumer while it is worked for."""

from __future__ import annotations

import asyncio
import logging

from evento.consumers.port import ConsumerLease, ConsumerStateStore
from evento.consumers.signals import wait_event
from evento.errors import LeaseLost

__all__ = ["LeaseKeeper"]

logger = logging.getLogger("evento.consumers")

LOOK = 0.25
"""Seconds between two looks at what holds a renewal up."""
GRACE = 1.0
"""Seconds that a renewal gets at least, and that one gets that has waited behind a transaction."""


class LeaseKeeper:
    """Renews a lease every third of its time, and says when the work has to end.

    While a transaction of this process's own handlers holds the database's only writer (SQLite), a renewal has to wait
    behind it, but nobody else can be granted the lease either: that time does not count. The fence decides in any case.

    :param ttl: seconds that the lease lasts.
    :param valid_until: until when it is held for sure, in the event loop's time.
    :param alone: nobody else can be granted the lease at all, so a renewal may take as long as it takes.
    """

    def __init__(
        self, store: ConsumerStateStore, lease: ConsumerLease, *, ttl: float, valid_until: float, alone: bool
    ) -> None:
        self._store = store
        self._lease = lease
        self._ttl = ttl
        self._valid_until = valid_until
        self._alone = alone

    async def run(self, over: asyncio.Event) -> LeaseLost | None:
        """Renew until ``over`` is set; return early, with the reason, when the lease is lost."""
        pause = self._ttl / 3
        while not await wait_event(over, pause):
            pause = self._ttl / 3
            try:
                if not await self._renew(over):
                    return self._lost(f"{self._lease.consumer} is worked for by another process now")
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
                logger.warning("%s could not renew its lease: %s", self._lease.consumer, problem)
                if not self._alone and asyncio.get_running_loop().time() >= self._valid_until:
                    return self._lost(
                        f"the lease of {self._lease.consumer} could not be renewed in time, so that another process "
                        f"may work for it now: {problem}"
                    )
                if self._store.holds_writer:
                    pause = LOOK  # back into the queue behind the transaction, before others can be granted the lease
        return None

    async def _renew(self, over: asyncio.Event) -> bool:
        """Renew once; False when the lease is another's, :class:`TimeoutError` when there is no answer in time."""
        now = asyncio.get_running_loop().time
        asked = now()
        renewal = asyncio.create_task(
            self._store.renew(self._lease, ttl=self._ttl), name=f"evento-renewal {self._lease.consumer}"
        )
        try:
            while not renewal.done():
                await asyncio.wait({renewal}, timeout=LOOK)
                if self._store.holds_writer:
                    if over.is_set():
                        return True  # nobody needs the lease any more
                    asked = now()  # at the earliest, as it still waits behind the transaction
                    self._valid_until = max(self._valid_until, asked + GRACE)
                elif not (renewal.done() or self._alone) and now() >= max(self._valid_until, asked + GRACE):
                    raise TimeoutError("no answer in time")
            held = renewal.result()
        finally:
            if not renewal.done():
                renewal.cancel()
                await asyncio.wait({renewal})
        self._valid_until = asked + self._ttl
        return held

    def _lost(self, reason: str) -> LeaseLost:
        return LeaseLost(reason, consumer=str(self._lease.consumer), token=self._lease.token)
