"""The registry's operations on the wire: what may be asked under ``registry.[<bundle>.]<operation>``.

Every operation is acknowledged and may be sent again: saying it twice is saying it once. Those of instances say when
their sender gives up, by the cluster's time, and are not done later: a server may have been paused meanwhile, and the
instance have left. ``time`` tells the cluster's time (microseconds since 1970) to who does not know it yet.
"""

from __future__ import annotations

import msgspec

from evento.gateway.nats.calls import Operation
from evento.messages.registration import BundleDescription, InstanceView, Register, Registered, Session

__all__ = ["REGISTRY", "CatalogueCall", "SessionCall", "TimeCall", "ViewCall"]


class SessionCall(Session, frozen=True):
    """What an instance says of its session; ``deadline`` as that of :class:`Register`."""

    deadline: int = 0

    @property
    def session(self) -> Session:
        """The session alone."""
        return Session(self.bundle_id, self.instance_id, self.number)


class TimeCall(msgspec.Struct, frozen=True):
    """Ask for the cluster's time."""


class ViewCall(msgspec.Struct, frozen=True):
    """Which instances to show: those of one bundle, or all."""

    bundle_id: str | None = None


class CatalogueCall(msgspec.Struct, frozen=True):
    """Ask for what the bundles told of themselves, in the order of their ids.

    An answer holds as many as fit into one message: ask again with the last id as ``after``, until none come.
    """

    after: str = ""


REGISTRY = {
    "time": Operation(TimeCall, int),
    "register": Operation(Register, Registered),
    "enable": Operation(SessionCall, Registered),
    "disable": Operation(SessionCall, Registered),
    "heartbeat": Operation(SessionCall, Registered),
    "leave": Operation(SessionCall, bool),
    "view": Operation(ViewCall, list[InstanceView]),
    "catalogue": Operation(CatalogueCall, list[BundleDescription]),
}
