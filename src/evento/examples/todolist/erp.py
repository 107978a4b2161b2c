"""The bridge to the ERP system, which is simulated."""

import asyncio

from evento import Service, command_handler
from evento.examples.todolist.api.erp import ErpUserActivityRegisterCommand, ErpUserActivityRegisteredEvent
from evento.examples.todolist.latency import SimulatedLatency

__all__ = ["ErpService"]


class ErpService(Service):
    """Registers who contributed what; the ERP system takes its time for each contributor."""

    def __init__(self, latency: SimulatedLatency) -> None:
        self._latency = latency.erp_per_contributor

    @command_handler
    async def register(self, command: ErpUserActivityRegisterCommand) -> ErpUserActivityRegisteredEvent:
        """Register the contributions to a resource."""
        await asyncio.sleep(self._latency * len(command.contributions))
        return ErpUserActivityRegisteredEvent(command.resource_type, command.resource_identifier, command.contributions)
