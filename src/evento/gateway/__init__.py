"""The message gateway: commands and queries reach their one handler by type, wherever it runs."""

from evento.gateway.bus import MessageBus, RequestHandler
from evento.gateway.commands import CommandGateway
from evento.gateway.handling import Handling, current_handling
from evento.gateway.inprocess import InProcessBus
from evento.gateway.queries import QueryGateway
from evento.gateway.requests import RequestSender

__all__ = [
    "CommandGateway",
    "Handling",
    "InProcessBus",
    "MessageBus",
    "QueryGateway",
    "RequestHandler",
    "RequestSender",
    "current_handling",
]
