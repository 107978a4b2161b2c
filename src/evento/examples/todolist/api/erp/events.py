"""What has happened in the ERP system."""

from evento import ServiceEvent

__all__ = ["ErpUserActivityRegisteredEvent"]


class ErpUserActivityRegisteredEvent(ServiceEvent, domain="Erp"):
    """The contributions to a resource, by user, were registered."""

    resource_type: str
    resource_identifier: str
    contributions: dict[str, int]
