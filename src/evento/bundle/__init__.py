"""The bundle: one process of an Evento system."""

from evento.bundle.bundle import EventoBundle
from evento.bundle.executors import ConsumerExecutor, ThreadExecutor

__all__ = ["ConsumerExecutor", "EventoBundle", "ThreadExecutor"]
