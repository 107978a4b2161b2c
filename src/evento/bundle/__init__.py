"""The bundle: one process of an Evento system."""

from evento.bundle.bundle import EventoBundle
from evento.bundle.executors import ThreadExecutor

__all__ = ["EventoBundle", "ThreadExecutor"]
