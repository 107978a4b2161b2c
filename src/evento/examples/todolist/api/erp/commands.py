"""What can be asked of the ERP system."""

from evento import ServiceCommand
from evento.examples.todolist.api.erp.events import ErpUserActivityRegisteredEvent

__all__ = ["ErpUserActivityRegisterCommand"]


class ErpUserActivityRegisterCommand(ServiceCommand[ErpUserActivityRegisteredEvent], domain="Erp"):
    """Register how often each user has contributed to a resource; one registration of a resource at a time."""

    resource_type: str
    resource_identifier: str
    contributions: dict[str, int]

    @property
    def lock_id(self) -> str:
        """The activity on the resource."""
        return f"ACT_{self.resource_type}_{self.resource_identifier}"
