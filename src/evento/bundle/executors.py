"""Executors: threads for handlers that would block the event loop."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

from evento.components import ComponentDefinition
from evento.errors import DefinitionError

__all__ = ["THREADS", "Executors", "ThreadExecutor"]

THREADS = "threads"
"""The name of the executor that every bundle has."""


@dataclass(frozen=True, slots=True)
class ThreadExecutor:
    """A named pool of threads: ``EventoBundle(executors=[ThreadExecutor("reports", 4)])``.

    A handler with ``executor="reports"`` runs there instead of on the event loop.
    """

    name: str
    threads: int = 8


class Executors:
    """The pools that the handlers of one bundle ask for; only those are made."""

    def __init__(self, registered: Iterable[ThreadExecutor] = ()) -> None:
        self._registered = {THREADS: ThreadExecutor(THREADS)}
        for executor in registered:
            if not isinstance(executor, ThreadExecutor):
                raise DefinitionError(f"executors= takes ThreadExecutor objects, not {type(executor).__name__}")
            if executor.threads < 1:
                raise DefinitionError(f"the executor {executor.name!r} needs at least one thread")
            self._registered[executor.name] = executor
        self._pools: dict[str, Executor] = {}

    def open(self, components: Iterable[ComponentDefinition]) -> dict[str, Executor]:
        """Make the pools that handlers name; :class:`DefinitionError` for a name that is not registered."""
        for component in components:
            for handler in component.handlers:
                if handler.executor is None or handler.executor in self._pools:
                    continue
                executor = self._registered.get(handler.executor)
                if executor is None:
                    raise component.error(
                        f"{handler.name} names the executor {handler.executor!r}, which the bundle does not have: use "
                        f"'{THREADS}', or register ThreadExecutor({handler.executor!r}) in executors="
                    )
                self._pools[executor.name] = ThreadPoolExecutor(
                    executor.threads, thread_name_prefix=f"evento-{executor.name}"
                )
        return self._pools

    def close(self) -> None:
        """End the threads; running handlers have ended before."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        self._pools.clear()
