"""How long the systems outside take, which this application only pretends to have."""

from dataclasses import dataclass

__all__ = ["SimulatedLatency"]


@dataclass(frozen=True, slots=True)
class SimulatedLatency:
    """Seconds that the ERP system takes for each contributor, and the notification system for each message."""

    erp_per_contributor: float = 0.0
    notification: float = 0.0
