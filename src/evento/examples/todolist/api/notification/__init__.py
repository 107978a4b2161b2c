"""The domain Notification: messages to people."""

from evento.examples.todolist.api.notification.commands import NotificationSendCommand

__all__ = ["NotificationSendCommand"]
