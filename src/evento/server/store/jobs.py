"""Long operations: they run on one server, and the one who asked for them asks how far they are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from evento.errors import EventoError, Overloaded, error_to_data
from evento.gateway.nats import Delivery, NatsConnection, Subscription
from evento.gateway.nats.calls import Answer, encode
from evento.messages import new_id
from evento.state_store import PurgeReport, VerifyReport
from evento.state_store.remote import wire

__all__ = ["Jobs"]

logger = logging.getLogger("evento.server.store")

MAX_JOBS = 4
FORGOTTEN_SECONDS = 15.0
_MAX_STEPS = 10_000

Progress: TypeAlias = Callable[[int, int], None]
Run: TypeAlias = Callable[[Progress], Awaitable[VerifyReport | PurgeReport]]


class Jobs:
    """Runs a few long operations at a time. A job that nobody asks about for a while is cancelled and forgotten."""

    def __init__(self, connection: NatsConnection) -> None:
        self._connection = connection
        self._jobs: dict[asyncio.Task[None], Job] = {}

    async def start(self, run: Run) -> wire.JobStarted:
        """Start a job and serve the questions about it.

        :raises Overloaded: enough jobs run already.
        """
        running = sum(not job.is_done for job in self._jobs.values())
        if running >= MAX_JOBS:
            raise Overloaded(f"{running} verifications and purges run already: wait for one to end")
        job = Job(run)
        name = f"job-{new_id()}"
        subscription = await self._connection.subscribe(self._connection.subjects.store(name), job.asked)
        task = asyncio.create_task(_live(job, subscription), name=f"evento-{name}")
        self._jobs[task] = job
        task.add_done_callback(self._jobs.pop)
        return wire.JobStarted(name)

    async def close(self) -> None:
        """Cancel what runs: a purge is gone on with by the next one."""
        tasks = list(self._jobs)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _live(job: Job, subscription: Subscription) -> None:
    try:
        await job.live()
    finally:
        await subscription.unsubscribe()


class Job:
    """One long operation: its progress is kept until it is asked for, its report until nobody asks any more."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._steps: list[tuple[int, int]] = []
        self._report: VerifyReport | PurgeReport | None = None
        self._error: EventoError | None = None
        self._cancelled = False
        self._asked = asyncio.Event()

    @property
    def is_done(self) -> bool:
        """Whether the operation has ended."""
        return self._report is not None or self._error is not None

    async def live(self) -> None:
        """Run, and answer questions until none comes for a while."""
        work = asyncio.create_task(self._work())
        try:
            while not self._cancelled:
                self._asked.clear()
                async with asyncio.timeout(FORGOTTEN_SECONDS):
                    await self._asked.wait()
        except TimeoutError:
            pass
        finally:
            work.cancel()
            await asyncio.wait({work})

    def asked(self, delivery: Delivery) -> None:
        """Answer a question."""
        try:
            call: wire.JobCall = wire.JOB.decode_call(delivery.data)
        except EventoError as error:
            delivery.respond(encode(Answer[None](error_to_data(error))))
            return
        self._cancelled = call.cancel
        self._asked.set()
        delivery.respond(encode(self._answer()))

    async def _work(self) -> None:
        try:
            self._report = await self._run(self._step)
        except EventoError as error:
            self._error = error
        except Exception as error:
            logger.exception("a long operation of the store failed")
            self._error = EventoError(f"the operation failed in the server: {type(error).__name__}: {error}")

    def _answer(self) -> Answer[wire.JobStatus]:
        if self._error is not None:
            return Answer(error_to_data(self._error))
        steps, self._steps = self._steps, []
        match self._report:
            case None:
                return Answer(None, wire.JobStatus(steps, done=False))
            case VerifyReport():
                return Answer(None, wire.JobStatus(steps, done=True, verified=self._report))
            case _:
                return Answer(None, wire.JobStatus(steps, done=True, purged=self._report))

    def _step(self, done: int, total: int) -> None:
        if len(self._steps) >= _MAX_STEPS:
            del self._steps[: _MAX_STEPS // 2]
        self._steps.append((done, total))
