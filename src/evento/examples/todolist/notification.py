"""The bridge to the notification system, which is simulated."""

import asyncio
import logging

from evento import Service, command_handler
from evento.examples.todolist.api.notification import NotificationSendCommand
from evento.examples.todolist.latency import SimulatedLatency

__all__ = ["NotificationService", "Notifier"]

_logger = logging.getLogger(__name__)


class Notifier:
    """Where notifications come out: in the log. Derive from it to have them elsewhere."""

    def show(self, body: str) -> None:
        """Show one notification."""
        _logger.info("Notification: %s", body)


class NotificationService(Service):
    """Sends notifications; the notification system takes its time for each."""

    def __init__(self, notifier: Notifier, latency: SimulatedLatency) -> None:
        self._notifier = notifier
        self._latency = latency.notification

    @command_handler
    async def send(self, command: NotificationSendCommand) -> None:
        """Send one notification."""
        await asyncio.sleep(self._latency)
        self._notifier.show(command.body)
