"""Threads that do an event loop's database work in batches.

A worker is self-clocking: whatever was asked for during one turn of the loop, or while the last batch ran, is handed
over as one batch, and its outcomes come back with one wake-up of the loop. No timer, and no lock beyond one queue.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from evento.errors import Overloaded, StoreUnavailable
from evento.state_store.waiting import uncancelled

__all__ = ["Worker"]


class Closeable(Protocol):
    """What a thread opens for itself, and closes at its end."""

    def close(self) -> None:
        """Free the resource."""


R = TypeVar("R", bound=Closeable)


class Job(NamedTuple):
    """The future of an outcome, the operation, its size in bytes, about, and until when it may wait (monotonic)."""

    future: asyncio.Future[Any]
    operation: Any
    size: int
    expires: float


class Worker(Generic[R]):
    """One thread, or several that share the work, each with a resource of its own.

    ``open`` makes a thread's resource; ``run`` brings a batch of operations to as many outcomes, in order, where an
    exception is raised to its caller. Both are called in the threads. ``delivered`` is called in the loop after each
    batch, with the number of its operations and their bytes. More than ``max_jobs`` operations or ``max_bytes``
    waiting or running is :class:`Overloaded`; what has waited for ``max_wait`` seconds is not begun, and fails with
    :class:`StoreUnavailable`.
    """

    def __init__(
        self,
        name: str,
        *,
        open: Callable[[], R],
        run: Callable[[R, Sequence[Any]], Sequence[Any]],
        delivered: Callable[[int, int], None] = lambda jobs, size: None,
        threads: int = 1,
        max_jobs: int = 10_000,
        max_bytes: int = 64 * 1024 * 1024,
        max_batch: int = 1024,
        max_wait: float = 30.0,
    ) -> None:
        self._name = name
        self._open = open
        self._run = run
        self._delivered = delivered
        self._count = threads
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._max_batch = max_batch
        self._max_wait = max_wait
        self._accepting = False
        self._collected: list[Job] = []
        self._jobs = 0
        self._bytes = 0
        self._queue: SimpleQueue[list[Job] | None] = SimpleQueue()
        self._threads: list[tuple[threading.Thread, asyncio.Future[None]]] = []

    async def __aenter__(self) -> Worker[R]:
        """Start the threads; each has opened its resource when this returns."""
        self._loop = asyncio.get_running_loop()
        try:
            for number in range(self._count):
                started: asyncio.Future[None] = self._loop.create_future()
                finished: asyncio.Future[None] = self._loop.create_future()
                # A daemon, so that a store which was never closed cannot keep its process alive.
                thread = threading.Thread(
                    target=self._main, args=(started, finished), name=f"{self._name}-{number}", daemon=True
                )
                thread.start()
                self._threads.append((thread, finished))
                await uncancelled(started)
        except BaseException:
            await self._stop()
            raise
        self._accepting = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Bring what was submitted to its outcomes, then end and join the threads."""
        self._accepting = False
        self._hand_over()
        await self._stop()

    def submit(self, operation: Any, size: int = 0) -> asyncio.Future[Any]:
        """Queue one operation of about ``size`` bytes; call it in the event loop only.

        Cancelling the future does not withdraw the operation.
        """
        if self._jobs >= self._max_jobs or (self._bytes + size > self._max_bytes and self._jobs):
            raise self._overloaded()
        if not self._accepting:
            raise StoreUnavailable("the event store is not open: use it inside `async with`")
        self._jobs += 1
        self._bytes += size
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self._collected:
            self._loop.call_soon(self._hand_over)
        self._collected.append(Job(future, operation, size, time.monotonic() + self._max_wait))
        return future

    def _overloaded(self) -> Overloaded:
        return Overloaded(
            f"the event store has too much to do: {self._jobs:,} operations of {self._bytes:,} bytes wait "
            f"(the limits are {self._max_jobs:,} and {self._max_bytes:,}); nothing was stored, try again later",
            operations=self._jobs,
            bytes=self._bytes,
        )

    def _hand_over(self) -> None:
        jobs = self._collected
        if not jobs:
            return
        self._collected = []
        if self._count == 1:
            self._queue.put(jobs)
            return
        for number in range(min(self._count, len(jobs))):
            self._queue.put(jobs[number :: self._count])

    async def _stop(self) -> None:
        for _ in self._threads:
            self._queue.put(None)
        await uncancelled(asyncio.ensure_future(self._ended()))

    async def _ended(self) -> None:
        for thread, finished in self._threads:
            await finished
            # Its last word is said, so this takes a moment only; join() would block the loop meanwhile.
            while thread.is_alive():  # noqa: ASYNC110 - a thread's end tells nobody
                await asyncio.sleep(0)
        self._threads.clear()

    # In the threads

    def _main(self, started: asyncio.Future[None], finished: asyncio.Future[None]) -> None:
        try:
            resource = self._open()
        except BaseException as error:
            self._tell(_settle, started, error)
            self._tell(_settle, finished, None)
            return
        self._tell(_settle, started, None)
        try:
            while jobs := self._take():
                for start in range(0, len(jobs), self._max_batch):
                    self._work(resource, jobs[start : start + self._max_batch])
        finally:
            try:
                resource.close()
            finally:  # whatever closing raises, somebody waits for the end
                self._tell(_settle, finished, None)

    def _take(self) -> list[Job] | None:
        jobs = self._queue.get()
        # A lone thread takes all that has queued meanwhile; several leave the rest to each other.
        while jobs and self._count == 1 and not self._queue.empty():
            more = self._queue.get()
            if more is None:
                self._queue.put(None)
                break
            jobs += more
        return jobs

    def _work(self, resource: R, batched: list[Job]) -> None:
        if not (jobs := self._in_time(batched)):
            return
        outcomes: Sequence[Any]
        try:
            outcomes = self._run(resource, [job.operation for job in jobs])
        except Exception as error:  # a defect of ours: the callers must hear of it all the same
            outcomes = [error] * len(jobs)
        self._tell(self._deliver, jobs, outcomes)

    def _in_time(self, jobs: list[Job]) -> list[Job]:
        """Return those that may still be begun; the others fail."""
        now = time.monotonic()
        if jobs[0].expires > now:  # the oldest comes first
            return jobs
        late = [job for job in jobs if job.expires <= now]
        error = StoreUnavailable(
            f"the event store did not come to it: those before it took longer than {self._max_wait:g} s; nothing was "
            "done: check the disk, and whether another program holds a lock on the file, and send it again"
        )
        self._tell(self._deliver, late, [error] * len(late))
        return [job for job in jobs if job.expires > now]

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    # In the event loop again

    def _deliver(self, jobs: list[Job], outcomes: Sequence[Any]) -> None:
        total = 0
        for (future, _, size, _), outcome in zip(jobs, outcomes, strict=True):
            total += size
            if future.done():  # its caller was cancelled and waits no more
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        self._jobs -= len(jobs)
        self._bytes -= total
        self._delivered(len(jobs), total)


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
