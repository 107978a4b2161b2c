"""Appends that queue up in a bundle travel together.

Self-clocking, as group commit is: what was queued during one turn of the event loop, or while all requests were under
way, goes as one request. There is no timer, and nothing waits while a request can be sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeAlias

from evento.errors import EventoError, Overloaded, PayloadError, StoreUnavailable
from evento.state_store.port import EVENT_OVERHEAD, Append, AppendOutcome

__all__ = ["AppendQueue"]

Outcome: TypeAlias = AppendOutcome | EventoError
Send: TypeAlias = Callable[[Sequence[Append]], Awaitable[Sequence[Outcome]]]


class _Job(NamedTuple):
    """An append, how many bytes it counts for, and until when it may wait to be sent."""

    future: asyncio.Future[AppendOutcome]
    append: Append
    size: int
    expires: float


class AppendQueue:
    """Gathers appends into requests.

    :param send: brings a batch to as many outcomes, in order; what it raises is the outcome of each of them.
    :param max_queued, max_queued_bytes: bounds on what waits or is under way; beyond them :class:`Overloaded`.
    :param max_batch, max_batch_bytes: bounds of one request; an append that is larger alone travels alone.
    :param max_requests: requests under way at a time.
    :param max_wait: seconds after which an append that was not sent yet fails with
        :class:`~evento.errors.StoreUnavailable`, definitely.
    """

    def __init__(
        self,
        send: Send,
        *,
        max_queued: int = 10_000,
        max_queued_bytes: int = 64 * 1024 * 1024,
        max_batch: int = 512,
        max_batch_bytes: int = 512 * 1024,
        max_requests: int = 4,
        max_wait: float = 30.0,
    ) -> None:
        self._send = send
        self._max_queued = max_queued
        self._max_queued_bytes = max_queued_bytes
        self._max_batch = max_batch
        self._max_batch_bytes = max_batch_bytes
        self._max_requests = max_requests
        self._max_wait = max_wait
        self._waiting: deque[_Job] = deque()
        self._unanswered: dict[str, int] = {}  # of each command, those that are queued or under way
        self._held: dict[str, list[_Job]] = {}
        self._jobs = 0
        self._bytes = 0
        self._scheduled = False
        self._requests: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    def submit(self, append: Append) -> asyncio.Future[AppendOutcome]:
        """Queue an append; it leaves at the end of this turn of the loop at the earliest.

        :raises Overloaded: too much waits already.
        """
        event = append.event
        size = len(event.payload) + len(event.metadata) + EVENT_OVERHEAD
        if self._jobs >= self._max_queued or (self._jobs and self._bytes + size > self._max_queued_bytes):
            raise Overloaded(
                f"{event.name} was not stored: {self._jobs} appends ({self._bytes} bytes) of this bundle wait for the "
                "server; send fewer commands at a time",
                queued=self._jobs,
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[AppendOutcome] = loop.create_future()
        self._jobs += 1
        self._bytes += size
        job = _Job(future, append, size, loop.time() + self._max_wait)
        if event.command_id in self._held:
            self._held[event.command_id].append(job)
        else:
            self._enqueue(job)
        return future

    @asynccontextmanager
    async def held_back(self, command_id: str) -> AsyncIterator[None]:
        """Keep the order between appends of a command and what the block does about it.

        Those that were queued before are answered when the block begins; those that come now are sent after it.
        """
        if command_id in self._held:  # by another block, which ends by itself
            yield
            return
        self._held[command_id] = []
        try:
            while command_id in self._unanswered:
                await self._change()
            yield
        finally:
            for job in self._held.pop(command_id):
                self._enqueue(job)

    async def close(self) -> None:
        """Bring everything that was queued to an answer: what is not sent within ``max_wait`` fails."""
        while self._jobs:
            self._dispatch()
            if self._jobs:
                await self._change()
        if self._requests:
            await asyncio.wait(self._requests)

    async def _change(self) -> None:
        """Wait until an append comes into the queue or is answered."""
        self._changed.clear()
        await self._changed.wait()

    def _enqueue(self, job: _Job) -> None:
        self._waiting.append(job)
        command_id = job.append.event.command_id
        self._unanswered[command_id] = self._unanswered.get(command_id, 0) + 1
        self._changed.set()
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._requests) < self._max_requests:
            batch = self._in_time(self._next_batch())
            if not batch:
                continue
            task = asyncio.create_task(self._bring(batch), name="evento-append")
            self._requests.add(task)
            task.add_done_callback(self._brought)

    def _next_batch(self) -> list[_Job]:
        batch: list[_Job] = []
        size = 0
        while self._waiting and len(batch) < self._max_batch:
            if batch and size + self._waiting[0].size > self._max_batch_bytes:
                break
            job = self._waiting.popleft()
            batch.append(job)
            size += job.size
        return batch

    def _in_time(self, jobs: list[_Job]) -> list[_Job]:
        """Return those that may still be sent; the others fail."""
        now = asyncio.get_running_loop().time()
        if jobs[0].expires > now:  # the oldest comes first
            return jobs
        late = [job for job in jobs if job.expires <= now]
        error = StoreUnavailable(
            f"the append was not sent: the server did not answer those before it within {self._max_wait:g} s; look "
            "whether it runs and reaches its database"
        )
        self._settle(late, [error] * len(late))
        return [job for job in jobs if job.expires > now]

    def _brought(self, task: asyncio.Task[None]) -> None:
        self._requests.discard(task)
        self._dispatch()

    async def _bring(self, batch: list[_Job]) -> None:
        """Bring a batch to its outcomes; one that cannot be encoded is sent in halves: only its offender fails."""
        left = [batch]
        try:
            while left:
                part = left[-1]
                outcomes = await self._outcomes(part)
                left.pop()
                if outcomes is not None:
                    self._settle(part, outcomes)
                    continue
                half = len(part) // 2
                left += [later for jobs in (part[half:], part[:half]) if (later := self._in_time(jobs))]
        except asyncio.CancelledError:
            given_up = StoreUnavailable("the append was given up before its answer came")
            given_up.definite = False
            for part in left:
                self._settle(part, [given_up] * len(part))
            raise

    async def _outcomes(self, batch: list[_Job]) -> Sequence[Outcome] | None:
        """Send a batch and return its outcomes; None when it must be sent in parts, and nothing has happened."""
        try:
            return await self._send([job.append for job in batch])
        except PayloadError as error:
            return None if len(batch) > 1 else [error]
        except EventoError as error:
            return [error] * len(batch)
        except Exception as error:
            unknown = StoreUnavailable(f"the append failed for a reason that is not foreseen: {error!r}")
            unknown.definite = False
            unknown.__cause__ = error
            return [unknown] * len(batch)

    def _settle(self, batch: list[_Job], outcomes: Sequence[Outcome]) -> None:
        unanswered = self._unanswered
        for (future, append, size, _), outcome in zip(batch, outcomes, strict=True):
            self._jobs -= 1
            self._bytes -= size
            command_id = append.event.command_id
            if unanswered[command_id] == 1:
                del unanswered[command_id]
            else:
                unanswered[command_id] -= 1
            if future.done():
                continue
            if isinstance(outcome, EventoError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        self._changed.set()
