"""Executors: threads for handlers that would block the event loop, and lanes for many events at a time."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

from evento.components import ComponentDefinition, HandlerKind
from evento.errors import DefinitionError

__all__ = ["THREADS", "ConsumerExecutor", "Executors", "ThreadExecutor"]

THREADS = "threads"
"""The name of the executor that every bundle has."""


@dataclass(frozen=True, slots=True)
class ThreadExecutor:
    """A named pool of threads: ``EventoBundle(executors=[ThreadExecutor("reports", 4)])``.

    A handler with ``executor="reports"`` runs there instead of on the event loop.
    """

    name: str
    threads: int = 8


@dataclass(frozen=True, slots=True)
class ConsumerExecutor:
    """Handles many events of a projector or an observer at a time, see :meth:`partitioned`."""

    name: str
    lanes: int

    @classmethod
    def partitioned(cls, name: str, lanes: int) -> ConsumerExecutor:
        """Return an executor with lanes, for ``@event_handler(executor=name)``.

        A projector or observer with at least one such handler handles *all* its events in ``lanes`` lanes of its own,
        for each of its contexts. The events of an aggregate share a lane and keep their order; an event without an
        aggregate goes to any lane. A lane handles one event at a time, the lanes work side by side: ``async``
        handlers on the event loop, others in as many threads as there are lanes.

        Guaranteed: every event is handled at least once; a crash repeats those that ran or were not yet recorded, and
        no other. Not guaranteed: any order between aggregates, and exactly once, so that such a component with a
        handler that asks for the checkpoint's connection or session does not start. An event that is retried, or is
        slow, holds up its lane, and in the end the consumer.
        """
        return cls(name, lanes)


_DEFAULT = ThreadExecutor(THREADS)  # a bundle may register its own of that name


class Executors:
    """The pools that the handlers of one bundle ask for; only those are made."""

    def __init__(self, registered: Iterable[ThreadExecutor | ConsumerExecutor] = ()) -> None:
        self._registered: dict[str, ThreadExecutor | ConsumerExecutor] = {THREADS: _DEFAULT}
        for executor in registered:
            _check(executor)
            other = self._registered.get(executor.name)
            if other is not None and other is not _DEFAULT:
                raise DefinitionError(
                    f"executors= has two of the name {executor.name!r}, {other} and {executor}: give one of them "
                    "another name, or take it out"
                )
            self._registered[executor.name] = executor
        self._pools: dict[str, Executor] = {}

    @property
    def lanes(self) -> dict[str, int]:
        """How many lanes the partitioned executors have."""
        return {one.name: one.lanes for one in self._registered.values() if isinstance(one, ConsumerExecutor)}

    def open(self, components: Iterable[ComponentDefinition]) -> dict[str, Executor]:
        """Make the pools that handlers name.

        :raises DefinitionError: a name is not registered, or a handler of something else than events names lanes.
        """
        for component in components:
            for handler in component.handlers:
                if handler.executor is None:
                    continue
                executor = self._registered.get(handler.executor)
                if executor is None:
                    raise component.error(
                        f"{handler.name} names the executor {handler.executor!r}, which the bundle does not have: use "
                        f"'{THREADS}', or register ThreadExecutor({handler.executor!r}) in executors="
                    )
                if isinstance(executor, ConsumerExecutor) and handler.kind is not HandlerKind.EVENT:
                    raise component.error(
                        f"{handler.name} names the executor {handler.executor!r}, which is partitioned, for the "
                        f"handlers of events only: use '{THREADS}', or a ThreadExecutor"
                    )
                if executor.name not in self._pools:
                    self._pools[executor.name] = ThreadPoolExecutor(
                        executor.threads if isinstance(executor, ThreadExecutor) else executor.lanes,
                        thread_name_prefix=f"evento-{executor.name}",
                    )
        return self._pools

    def close(self) -> None:
        """End the threads; running handlers have ended before."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        self._pools.clear()


def _check(executor: object) -> None:
    match executor:
        case ThreadExecutor():
            if executor.threads < 1:
                raise DefinitionError(f"the executor {executor.name!r} needs at least one thread")
        case ConsumerExecutor():
            if executor.lanes < 1:
                raise DefinitionError(f"the executor {executor.name!r} needs at least one lane")
        case _:
            raise DefinitionError(
                f"executors= takes ThreadExecutor and ConsumerExecutor objects, not {type(executor).__name__}"
            )
