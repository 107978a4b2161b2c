"""What may be set about consumers."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ConsumerSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerSettings:
    """The settings of a bundle's consumers; times are seconds.

    :param fetch_size: events per page.
    :param checkpoint_interval: the longest time that a handled event waits for its checkpoint.
    :param lease_ttl: how long a replica that died keeps its consumers from the others; renewed at a third of it.
    :param take_over: leases are taken whoever holds them, because no other holder can be alive: for a bundle that holds
        the file lock of an embedded store. Such a bundle also keeps a lease that it cannot renew in time.
    :param stop_timeout: how long a stop waits for the running handler before it cancels it.
    :param max_dead_streak: after so many dead events without a success in between a consumer pauses itself.
    :param observer_concurrency: handlers of one observer that run at a time.
    :param observer_unfinished: events of one observer that run or wait for another attempt; at that no more are begun.
        Of a consumer with lanes also those that wait in a lane.
    :param observer_window: finished events of one observer, or of a consumer with lanes, that are remembered behind an
        unfinished one; at that no more are begun.
    """

    fetch_size: int = 1000
    checkpoint_interval: float = 0.1
    lease_ttl: float = 15.0
    take_over: bool = False
    stop_timeout: float = 30.0
    max_dead_streak: int = 100
    observer_concurrency: int = 32
    observer_unfinished: int = 1000
    observer_window: int = 10_000
