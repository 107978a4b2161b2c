"""What bundles tell the servers of themselves: a bundle's description, its registration, its heartbeats.

These structs travel between processes that may be of neighbouring versions: unknown fields are ignored, a new field has
a default, and nothing in them names a class that anybody would load.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = [
    "BundleDescription",
    "ComponentDescription",
    "ConsumerSample",
    "HandlerDescription",
    "HandlerSample",
    "InstanceView",
    "PayloadDescription",
    "Register",
    "Registered",
    "SendDescription",
    "Sample",
    "Session",
]


class SendDescription(msgspec.Struct, frozen=True, omit_defaults=True):
    """A place in a handler where a message is sent; ``name`` is its wire name, or source text where unresolved."""

    kind: str  # "command", "query" or "unresolved"
    name: str
    file: str = ""
    line: int = 0


class HandlerDescription(msgspec.Struct, frozen=True, omit_defaults=True):
    """One handler. ``kind`` is the name of its decorator's kind, such as ``AggregateCommandHandler``."""

    name: str
    kind: str
    payload: str
    results: tuple[str, ...] = ()
    many: bool = False
    init: bool = False
    association_property: str | None = None
    executor: str | None = None
    description: str = ""
    file: str = ""
    line: int = 0
    sends: tuple[SendDescription, ...] = ()


class ComponentDescription(msgspec.Struct, frozen=True, omit_defaults=True):
    """One component: ``role`` is one of the seven; ``version`` and ``contexts`` concern consumers."""

    name: str
    role: str
    handlers: tuple[HandlerDescription, ...] = ()
    version: int = 1
    contexts: tuple[str, ...] = ()
    description: str = ""
    file: str = ""
    line: int = 0


class PayloadDescription(msgspec.Struct, frozen=True, omit_defaults=True):
    """One payload: ``kind`` is such as ``DomainCommand``, ``schema`` its JSON schema (2020-12)."""

    name: str
    kind: str
    version: int = 1
    domain: str = ""
    description: str = ""
    file: str = ""
    line: int = 0
    schema: dict[str, Any] = {}


class BundleDescription(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a bundle is and holds. ``commands`` and ``queries`` are the names that it handles."""

    bundle_id: str
    version: int = 1
    description: str = ""
    detail: str = ""
    repository_url: str = ""
    line_prefix: str = "L"
    commands: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()
    components: tuple[ComponentDescription, ...] = ()
    payloads: tuple[PayloadDescription, ...] = ()


class Session(msgspec.Struct, frozen=True):
    """One registration of one instance: a later one of the same instance makes it void.

    A heartbeat, or a leave, of a void session changes nothing.
    """

    bundle_id: str
    instance_id: str
    number: int


class Register(msgspec.Struct, frozen=True):
    """Register an instance, or register it again after a reconnect; ``enabled`` keeps what it was.

    ``deadline`` is when its sender gives up, in microseconds of the cluster's time, 0 where that is not known: it is
    not done later.
    """

    description: BundleDescription
    instance_id: str
    enabled: bool = False
    host: str = ""
    pid: int = 0
    started_at: int = 0
    deadline: int = 0


class Registered(msgspec.Struct, frozen=True):
    """The registration is acknowledged: it lasts ``lease`` seconds from its last heartbeat.

    ``time`` is the cluster's time in microseconds since 1970, by which deadlines are judged.
    """

    session: Session
    lease: float
    time: int


class HandlerSample(msgspec.Struct, frozen=True, array_like=True):
    """What one handler did since the last sample: ``seconds`` summed, ``slowest`` of them."""

    handler: str
    payload: str
    count: int
    errors: int
    seconds: float
    slowest: float


class ConsumerSample(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where one consumer of an instance stands; ``lag_events`` of a standby is that of its last look."""

    component: str
    version: int
    context: str
    state: str
    position: int
    head: int
    lag_events: int
    errors: int = 0
    dead: int = 0
    waiting: int = 0
    lag_seconds: float | None = None


class Sample(msgspec.Struct, frozen=True):
    """What an instance measured in the last second; published, and lost without harm."""

    session: Session
    seconds: float
    handlers: tuple[HandlerSample, ...] = ()
    consumers: tuple[ConsumerSample, ...] = ()
    in_flight: int = 0
    running: int = 0


class InstanceView(msgspec.Struct, frozen=True):
    """One instance as operators see it; ``heartbeat_age`` in seconds, by the clock that judges leases."""

    bundle_id: str
    instance_id: str
    version: int
    enabled: bool
    heartbeat_age: float
    host: str = ""
    pid: int = 0
    started_at: int = 0
    server: str = ""
