"""How many instances of each bundle live, for ``/metrics``: counted in the background while the database is slow."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Self

from evento.errors import EventoError
from evento.server.registry import RegistryDatabase
from evento.server.telemetry import Instances, Telemetry

__all__ = ["InstanceCount"]

logger = logging.getLogger("evento.server")

_COUNT_SECONDS = 1.0


class InstanceCount:
    """Counts the registry's instances into the telemetry, whenever it is asked to, from entering to leaving."""

    def __init__(self, registry: RegistryDatabase, telemetry: Telemetry) -> None:
        self._registry = registry
        self._telemetry = telemetry
        self._counting: asyncio.Task[None] | None = None
        self._counts = False

    async def __aenter__(self) -> Self:
        self._counts = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._counts = False
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.wait({self._counting})

    async def refresh(self) -> None:
        """Count anew; what takes longer than a second goes on without the caller, and the counts stay what they were.

        One count runs at a time.
        """
        if not self._counts:
            return
        if self._counting is None or self._counting.done():
            self._counting = asyncio.create_task(self._count(), name="evento instances")
        await asyncio.wait({self._counting}, timeout=_COUNT_SECONDS)

    async def _count(self) -> None:
        live: Counter[str] = Counter()
        enabled: Counter[str] = Counter()
        try:
            for instance in await self._registry.view():
                live[instance.bundle_id] += 1
                enabled[instance.bundle_id] += instance.enabled
        except EventoError as error:
            logger.debug("the registry does not tell its instances: %s", error)
            return
        self._telemetry.live((bundle, Instances(live[bundle], enabled[bundle])) for bundle in sorted(live))
