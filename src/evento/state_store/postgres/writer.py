"""The one writer of a process: it brings appends and tombstones to the database, in their order and in batches.

It is self-clocking: whatever has queued while the last statement ran is the next one. No timer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

from evento.errors import ErrorData, Overloaded, PayloadError, StoreUnavailable
from evento.state_store.port import Append
from evento.state_store.postgres import batch, failures
from evento.state_store.postgres.connections import Connection, Connector, close, patiently, pauses
from evento.state_store.postgres.operations import reject

__all__ = ["Rejection", "Writer"]

T = TypeVar("T")
_MAX_BATCH = 1024
_MAX_BATCH_BYTES = 16 * 1024 * 1024
_logger = logging.getLogger("evento.store")


class Rejection(NamedTuple):
    """A tombstone to be written."""

    command_id: str
    error: ErrorData


class Job(NamedTuple):
    """The future of an outcome, the operation, its size in bytes, about, and until when it may wait (loop time)."""

    future: asyncio.Future[Any]
    operation: Append | Rejection
    size: int
    expires: float


class Writer:
    """A queue, a task that empties it, and the connection that this task writes on.

    More than ``max_jobs`` operations or ``max_bytes`` waiting or running is :class:`Overloaded`; what has waited for
    longer than the connector's timeout is not begun, and fails with :class:`StoreUnavailable`. ``committed`` is called
    with each new head, before the appends are answered.
    """

    def __init__(
        self,
        connector: Connector,
        connection: Connection,
        lock_key: int,
        *,
        max_jobs: int,
        max_bytes: int,
        committed: Callable[[int], None],
    ) -> None:
        self._connector = connector
        self._connection = connection
        self._lock_key = lock_key
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._committed = committed
        self._queue: list[Job] = []
        self._jobs = 0
        self._bytes = 0
        self._closing = False
        self._something = asyncio.Event()
        self._task = asyncio.create_task(self._work(), name="evento-store-writer")

    async def aclose(self) -> None:
        """Bring what was submitted to its outcomes, then close the connection."""
        self._closing = True
        self._something.set()
        await self._task
        await close(self._connection)

    def submit(self, operation: Append | Rejection, size: int) -> asyncio.Future[Any]:
        """Queue one operation of about ``size`` bytes. Cancelling the future does not withdraw it."""
        if self._jobs >= self._max_jobs or (self._bytes + size > self._max_bytes and self._jobs):
            raise self._overloaded()
        self._jobs += 1
        self._bytes += size
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._queue.append(Job(future, operation, size, loop.time() + self._connector.timeout))
        self._something.set()
        return future

    def _overloaded(self) -> Overloaded:
        return Overloaded(
            f"the event store has too much to do: {self._jobs:,} operations of {self._bytes:,} bytes wait "
            f"(the limits are {self._max_jobs:,} and {self._max_bytes:,}); nothing was stored, try again later",
            operations=self._jobs,
            bytes=self._bytes,
        )

    # In the task

    async def _work(self) -> None:
        while True:
            await self._something.wait()
            self._something.clear()
            while self._queue:
                queue, self._queue = self._queue, []
                for batched in _batches(queue):
                    if not (jobs := self._in_time(batched)):
                        continue
                    outcomes: Sequence[Any]
                    try:
                        outcomes = await self._run([job.operation for job in jobs])
                    except Exception as error:  # a defect of ours: the callers must hear of it all the same
                        outcomes = [error] * len(jobs)
                    self._deliver(jobs, outcomes)
            if self._closing:
                return

    def _in_time(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Return those that may still be begun; the others fail."""
        now = asyncio.get_running_loop().time()
        if jobs[0].expires > now:  # the oldest comes first
            return jobs
        late = [job for job in jobs if job.expires <= now]
        error = StoreUnavailable(
            f"{self._connector.address}: those before it took longer than {self._connector.timeout:g} s; nothing was "
            "stored: check that the server runs and what it is busy with, and send it again",
            location=str(self._connector.address),
        )
        self._deliver(late, [error] * len(late))
        return [job for job in jobs if job.expires > now]

    async def _run(self, operations: Sequence[Any]) -> Sequence[Any]:
        deadline = asyncio.get_running_loop().time() + self._connector.timeout
        first = operations[0]
        if isinstance(first, Rejection):
            return [await self._outcome_of(first, deadline)]
        misfits = {at: error for at, append in enumerate(operations) if (error := _misfit(append)) is not None}
        if not misfits:
            return await self._append(operations, deadline)
        fitting = [append for at, append in enumerate(operations) if at not in misfits]
        outcomes = iter(await self._append(fitting, deadline) if fitting else ())
        return [misfits[at] if at in misfits else next(outcomes) for at in range(len(operations))]

    async def _outcome_of(self, new: Rejection, deadline: float) -> Any:
        try:
            return await self._settled(
                lambda connection, is_repeated: reject(
                    connection, self._lock_key, new.command_id, new.error, is_repeated=is_repeated
                ),
                deadline,
            )
        except Exception as error:
            return failures.bad_data(error) if failures.is_bad_data(error) else error

    async def _append(self, appends: Sequence[Append], deadline: float) -> Sequence[Any]:
        """Store a batch. Data that cannot be stored makes it run again in halves, until only the offender fails."""
        try:
            outcomes, head = await self._settled(
                lambda connection, is_repeated: batch.store(
                    connection, self._lock_key, appends, is_repeated=is_repeated
                ),
                deadline,
            )
        except StoreUnavailable as error:
            return [error] * len(appends)
        except Exception as error:
            if not failures.is_bad_data(error):
                return [error] * len(appends)
            if len(appends) == 1:
                return [failures.bad_data(error)]
            half = len(appends) // 2
            return [*await self._append(appends[:half], deadline), *await self._append(appends[half:], deadline)]
        if head is not None:
            self._committed(head)
        return [
            failures.unavailable(outcome, self._connector.address, definite=False)
            if isinstance(outcome, Exception)
            else outcome
            for outcome in outcomes
        ]

    async def _settled(self, work: Callable[[Connection, bool], Awaitable[T]], deadline: float) -> T:
        """Run ``work``; when its connection is lost, connect and run it again, telling it so, until ``deadline``.

        :raises StoreUnavailable: indeterminate when it may have been done and that cannot be found out in time.
        """
        loop = asyncio.get_running_loop()
        waits = pauses()
        is_repeated = False
        while True:
            try:
                if self._connection.is_closed():
                    self._connection = await patiently(self._connector, deadline)
                return await work(self._connection, is_repeated)
            except StoreUnavailable as error:
                error.definite = not is_repeated
                raise
            except failures.FAILURES as error:
                if failures.is_lost(error):
                    _logger.warning("a connection was lost while it wrote; asking again: %s", error)
                    self._connection.terminate()
                    is_repeated = True
                    if loop.time() < deadline:
                        await asyncio.sleep(next(waits))
                        continue
                elif failures.is_bad_data(error):
                    raise
                raise failures.unavailable(error, self._connector.address, definite=not is_repeated) from error

    def _deliver(self, jobs: Sequence[Job], outcomes: Sequence[Any]) -> None:
        for (future, _, size, _), outcome in zip(jobs, outcomes, strict=True):
            self._bytes -= size
            if future.done():  # its caller was cancelled and waits no more
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        self._jobs -= len(jobs)


def _batches(queue: Sequence[Job]) -> Iterator[list[Job]]:
    """Cut a queue into runs of appends, and single tombstones."""
    for is_append, group in groupby(queue, lambda job: isinstance(job.operation, Append)):
        jobs: list[Job] = []
        total = 0
        for job in group:
            if jobs and (not is_append or len(jobs) >= _MAX_BATCH or total + job.size > _MAX_BATCH_BYTES):
                yield jobs
                jobs, total = [], 0
            jobs.append(job)
            total += job.size
        yield jobs


def _misfit(append: Append) -> PayloadError | None:
    event = append.event
    if event.aggregate_id is None and (append.expected_version is not None or append.deletes):
        return PayloadError(f"{event.name}: an event without an aggregate id has no version", name=event.name)
    return None
