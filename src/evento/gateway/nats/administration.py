"""What an instance of a bundle can be asked under ``instance.<bundle>.<instance>.<operation>``.

Only servers and the administrator may send there. Everything but ``discard`` may be asked again without harm; what is
discarded twice is discarded once.
"""

from __future__ import annotations

from evento.gateway.nats.calls import Operation
from evento.messages.consumers import (
    ConsumerCall,
    ConsumersCall,
    ConsumersPage,
    ConsumerView,
    DeadEventsCall,
    DeadEventsPage,
    SelectionCall,
)

__all__ = ["ADMINISTRATION"]

ADMINISTRATION = {
    "consumers": Operation(ConsumersCall, ConsumersPage),
    "consumer": Operation(ConsumerCall, ConsumerView),
    "pause": Operation(ConsumerCall, None),
    "resume": Operation(ConsumerCall, None),
    "dead": Operation(DeadEventsCall, DeadEventsPage),
    "retry": Operation(SelectionCall, int),
    "cancel-retry": Operation(SelectionCall, int),
    "discard": Operation(SelectionCall, int),
}
