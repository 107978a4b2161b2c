"""The registry's operations on the wire: what may be asked under ``registry.[<bundle>.]<operation>``.

Every operation is acknowledged and may be sent again: saying it twice is saying it once.
"""

from __future__ import annotations

import msgspec

from evento.gateway.nats.calls import Operation
from evento.messages.registration import BundleDescription, InstanceView, Register, Registered, Session

__all__ = ["REGISTRY", "CatalogueCall", "ViewCall"]


class ViewCall(msgspec.Struct, frozen=True):
    """Which instances to show: those of one bundle, or all."""

    bundle_id: str | None = None


class CatalogueCall(msgspec.Struct, frozen=True):
    """Ask for what the bundles told of themselves, in the order of their ids.

    An answer holds as many as fit into one message: ask again with the last id as ``after``, until none come.
    """

    after: str = ""


REGISTRY = {
    "register": Operation(Register, Registered),
    "enable": Operation(Session, Registered),
    "disable": Operation(Session, Registered),
    "heartbeat": Operation(Session, Registered),
    "leave": Operation(Session, bool),
    "view": Operation(ViewCall, list[InstanceView]),
    "catalogue": Operation(CatalogueCall, list[BundleDescription]),
}
