"""Appends that queue up in a bundle travel together.

Self-clocking, as group commit is: what was queued during one turn of the event loop, or while all requests were under
way, goes as one request. There is no timer, and nothing waits while a request can be sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

from evento.errors import EventoError, Overloaded, PayloadError, StoreUnavailable
from evento.state_store.port import Append, AppendOutcome

__all__ = ["AppendQueue"]

_OVERHEAD = 512

Outcome: TypeAlias = AppendOutcome | EventoError
Send: TypeAlias = Callable[[Sequence[Append]], Awaitable[Sequence[Outcome]]]
_Job: TypeAlias = "tuple[asyncio.Future[AppendOutcome], Append, int]"


class AppendQueue:
    """Gathers appends into requests.

    :param send: brings a batch to as many outcomes, in order; what it raises is the outcome of each of them.
    :param max_queued, max_queued_bytes: bounds on what waits or is under way; beyond them :class:`Overloaded`.
    :param max_batch, max_batch_bytes: bounds of one request; an append that is larger alone travels alone.
    :param max_requests: requests under way at a time.
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
    ) -> None:
        self._send = send
        self._max_queued = max_queued
        self._max_queued_bytes = max_queued_bytes
        self._max_batch = max_batch
        self._max_batch_bytes = max_batch_bytes
        self._max_requests = max_requests
        self._waiting: deque[_Job] = deque()
        self._by_command: dict[str, asyncio.Future[AppendOutcome]] = {}
        self._held: dict[str, list[_Job]] = {}
        self._jobs = 0
        self._bytes = 0
        self._scheduled = False
        self._requests: set[asyncio.Task[None]] = set()

    def submit(self, append: Append) -> asyncio.Future[AppendOutcome]:
        """Queue an append; it leaves at the end of this turn of the loop at the earliest.

        :raises Overloaded: too much waits already.
        """
        event = append.event
        size = len(event.payload) + len(event.metadata) + _OVERHEAD
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
        if event.command_id in self._held:
            self._held[event.command_id].append((future, append, size))
        else:
            self._enqueue((future, append, size))
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
            while (future := self._by_command.get(command_id)) is not None and not future.done():
                await asyncio.wait({future})
            yield
        finally:
            for job in self._held.pop(command_id):
                self._enqueue(job)

    async def close(self) -> None:
        """Bring everything that was queued to an answer; bounded by the deadline of the requests."""
        while self._jobs:
            self._dispatch()
            await (asyncio.wait(self._requests) if self._requests else asyncio.sleep(0))

    def _enqueue(self, job: _Job) -> None:
        self._waiting.append(job)
        self._by_command[job[1].event.command_id] = job[0]
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._requests) < self._max_requests:
            batch = self._next_batch()
            task = asyncio.create_task(self._bring(batch), name="evento-append")
            self._requests.add(task)
            task.add_done_callback(self._brought)

    def _next_batch(self) -> list[_Job]:
        batch: list[_Job] = []
        size = 0
        while self._waiting and len(batch) < self._max_batch:
            if batch and size + self._waiting[0][2] > self._max_batch_bytes:
                break
            job = self._waiting.popleft()
            batch.append(job)
            size += job[2]
        return batch

    def _brought(self, task: asyncio.Task[None]) -> None:
        self._requests.discard(task)
        self._dispatch()

    async def _bring(self, batch: list[_Job]) -> None:
        outcomes: Sequence[Outcome]
        try:
            outcomes = await self._send([append for _, append, _ in batch])
        except PayloadError as error:
            if len(batch) > 1:  # one of them cannot be encoded: it must fail alone
                for job in batch:
                    await self._bring([job])
                return
            outcomes = [error]
        except asyncio.CancelledError:
            given_up = StoreUnavailable("the append was given up before its answer came")
            given_up.definite = False
            self._settle(batch, [given_up] * len(batch))
            raise
        except EventoError as error:
            outcomes = [error] * len(batch)
        except Exception as error:
            unknown = StoreUnavailable(f"the append failed for a reason that is not foreseen: {error!r}")
            unknown.definite = False
            unknown.__cause__ = error
            outcomes = [unknown] * len(batch)
        self._settle(batch, outcomes)

    def _settle(self, batch: list[_Job], outcomes: Sequence[Outcome]) -> None:
        for (future, append, size), outcome in zip(batch, outcomes, strict=True):
            self._jobs -= 1
            self._bytes -= size
            self._by_command.pop(append.event.command_id, None)
            if future.done():
                continue
            if isinstance(outcome, EventoError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
