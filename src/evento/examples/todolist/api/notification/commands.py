"""What can be asked of the notification system."""

from evento import ServiceCommand

__all__ = ["NotificationSendCommand"]


class NotificationSendCommand(ServiceCommand[None], domain="Notification"):
    """Send a message; it leaves no event."""

    body: str
