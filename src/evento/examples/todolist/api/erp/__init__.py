"""The domain Erp: the company's system that accounts for what people did."""

from evento.examples.todolist.api.erp.commands import ErpUserActivityRegisterCommand
from evento.examples.todolist.api.erp.events import ErpUserActivityRegisteredEvent

__all__ = ["ErpUserActivityRegisterCommand", "ErpUserActivityRegisteredEvent"]
