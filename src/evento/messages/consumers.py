"""What operators ask an instance of a bundle about its consumers, and what it answers.

Like those of registration, these structs travel between neighbouring versions: a new field has a default. A consumer is
named by its four fields.
"""

from __future__ import annotations

import msgspec

__all__ = [
    "ConsumerCall",
    "ConsumerName",
    "ConsumerView",
    "ConsumersCall",
    "ConsumersPage",
    "DeadEventView",
    "DeadEventsCall",
    "DeadEventsPage",
    "SelectionCall",
]


class ConsumerName(msgspec.Struct, frozen=True):
    """Which consumer: a component of a bundle, in one version, reading the events of one context pattern."""

    bundle: str
    component: str
    version: int
    context: str


class ConsumerView(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a consumer stands, as the instance sees it that was asked; times are microseconds since 1970."""

    name: ConsumerName
    role: str
    state: str
    position: int
    head: int
    lag_events: int
    head_reached: bool
    errors: int = 0
    last_error: str | None = None
    failing_since: int | None = None
    dead: int = 0
    waiting: int = 0
    retrying: int = 0
    lag_seconds: float | None = None


class DeadEventView(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event in a dead event queue."""

    position: int
    event_id: str
    event_name: str
    context: str
    aggregate_id: str | None = None
    key: str | None = None
    waiting: bool = False
    error_type: str = ""
    error_message: str = ""
    traceback: str = ""
    attempts: int = 0
    retry: bool = False
    parked_at: int = 0


class ConsumersCall(msgspec.Struct, frozen=True):
    """Ask for the consumers of the instance, without the first ``skip``."""

    skip: int = 0
    limit: int = 200


class ConsumersPage(msgspec.Struct, frozen=True):
    """Some of the consumers; ``more`` tells that others follow."""

    consumers: list[ConsumerView]
    more: bool = False


class ConsumerCall(msgspec.Struct, frozen=True):
    """Ask something of one consumer."""

    name: ConsumerName


class DeadEventsCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """Ask for dead events, and those that wait behind them, that match all that is given."""

    name: ConsumerName
    position: int | None = None
    key: str | None = None
    event_name: str | None = None
    error_type: str | None = None
    waiting: bool | None = None
    retry: bool | None = None
    after: int = 0
    limit: int = 100


class DeadEventsPage(msgspec.Struct, frozen=True):
    """Some of the events, in the order of their positions; ``more`` tells that others may follow within the limit."""

    events: list[DeadEventView]
    more: bool = False


class SelectionCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """Ask for something to be done with the dead events that match; ``waiting`` concerns discarding alone."""

    name: ConsumerName
    position: int | None = None
    key: str | None = None
    event_name: str | None = None
    error_type: str | None = None
    waiting: bool = False
    all: bool = False
