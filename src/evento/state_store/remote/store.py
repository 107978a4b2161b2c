"""RemoteStateStore: the System State Store that a server keeps, reached by requests over the message gateway."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, TypeAlias

from evento.errors import ErrorData, EventoError, StoreMismatch, StoreUnavailable
from evento.gateway.nats import NatsConnection
from evento.gateway.nats.calls import Operation
from evento.messages import EventRecord, new_id
from evento.state_store.port import (
    MAX_READ_BYTES,
    Append,
    AppendOutcome,
    EventFilter,
    Found,
    Lease,
    LookupResult,
    Page,
    PurgeReport,
    Snapshot,
    StoreInfo,
    Story,
    VerifyReport,
)
from evento.state_store.remote import wire
from evento.state_store.remote.appends import AppendQueue
from evento.state_store.remote.head import LatchedHead
from evento.state_store.remote.requests import StoreRequests

__all__ = ["RemoteStateStore"]

logger = logging.getLogger("evento.state_store")

_LOOK_SECONDS = 5.0
_JOB_POLL_SECONDS = 0.1
_JOB_CANCEL_SECONDS = 1.0
Progress: TypeAlias = Callable[[int, int], None] | None


class RemoteStateStore:
    """A :class:`~evento.state_store.StateStore` that a server of the cluster keeps.

    The connection must be open when the store is entered, and stay open until it is closed; it is not closed here.
    While no server answers, or the connection is lost, an operation waits, and is sent again once there is one;
    sending an append again is safe, because its command id tells the store. At the end of ``timeout`` seconds it fails
    with :class:`~evento.errors.StoreUnavailable`, indeterminate when it may have reached a server. An append may wait
    as long again for those before it.

    A server that keeps another store, or another epoch of it, than the one that was found at the beginning is not used:
    operations raise :class:`~evento.errors.StoreMismatch`.

    ``max_queued`` operations, and ``max_queued_bytes`` of appends, bound what waits for an answer: beyond them
    operations raise :class:`~evento.errors.Overloaded`.
    """

    def __init__(
        self,
        connection: NatsConnection,
        *,
        timeout: float = 30.0,
        max_queued: int = 10_000,
        max_queued_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self._connection = connection
        self._requests = StoreRequests(connection, timeout=timeout, max_calls=max_queued)
        self._begin = self._requests.begin
        self._appends = AppendQueue(
            self._requests.append, max_queued=max_queued, max_queued_bytes=max_queued_bytes, max_wait=timeout
        )
        self._head = LatchedHead()
        self._identity: wire.Identity | None = None
        self._mismatch: str | None = None
        self._open = False
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> RemoteStateStore:
        """Ask the server which store it keeps, and follow its head."""
        if self._open:
            raise StoreUnavailable("the server's store is open already: use one store object for each `async with`")
        async with AsyncExitStack() as stack:
            notices = await self._connection.subscribe(self._connection.subjects.head, self._head.notice)
            stack.push_async_callback(notices.unsubscribe)
            self._requests.store = None
            self._identity = identity = await self._requests.call("identity", wire.Call(*self._begin()))
            self._requests.store = identity.store_id, identity.epoch
            self._head.of(identity.store_id, identity.head)
            stack.callback(self._connection.on_reconnect(self._look_again))
            stack.push_async_callback(self._appends.close)
            self._exit = stack.pop_all()
        self._open = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Bring queued appends to an answer; the connection stays open."""
        self._open = False
        self._head.wake()
        closing = asyncio.ensure_future(self._exit.aclose())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await asyncio.wait({closing})
            raise

    @property
    def store_id(self) -> str:
        """The store's own id, made when it was created."""
        return self._known_identity().store_id

    @property
    def epoch(self) -> int:
        """Rises whenever the history may have been replaced."""
        return self._known_identity().epoch

    # Operations --------------------------------------------------------------------------------------------------

    def append(self, append: Append) -> asyncio.Future[AppendOutcome]:
        """Queue one append and return the future of its outcome."""
        self._require_open()
        return self._appends.submit(append)

    async def story(
        self,
        aggregate_id: str,
        *,
        boundary: str | None = None,
        fingerprint: str | None = None,
        after_version: int = 0,
        max_bytes: int = MAX_READ_BYTES,
    ) -> Story:
        """Load what an aggregate's state is made of, as of one instant."""
        call = wire.StoryCall(*self._begin(), aggregate_id, boundary, fingerprint, after_version, max_bytes)
        story: Story = await self._call("story", call)
        return story

    async def fetch(
        self,
        after: int,
        *,
        contexts: Sequence[str] = ("*",),
        names: Sequence[str] | None = None,
        limit: int = 1000,
        max_bytes: int = MAX_READ_BYTES,
    ) -> Page:
        """Read events after a position, in order."""
        call = wire.FetchCall(*self._begin(), after, contexts, names, limit, max_bytes)
        page: Page = await self._call("fetch", call)
        return page

    async def head(self) -> int:
        """Return the position of the newest event, 0 in an empty store."""
        head: int = await self._call("head", wire.Call(*self._begin()))
        self._head.seen(head)
        return head

    async def wait(self, after: int, timeout: float) -> int:
        """Return the head as soon as it is beyond ``after``, at the latest after ``timeout`` seconds and a last look.

        The servers' notices tell of it, from before the store was opened; at the end the server is asked, in case that
        a notice was lost. It has five seconds to answer: then this raises :class:`~evento.errors.StoreUnavailable`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        self._require_open()
        while self._head.position <= after and (left := deadline - loop.time()) > 0:
            self._require_open()
            await self._head.woken(left)
        self._require_open()
        return self._head.position if self._head.position > after else await self._look()

    async def _look(self) -> int:
        """Ask for the head, and not for long."""
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                return await self.head()
        except TimeoutError:
            raise StoreUnavailable(
                f"store.head: no answer came within {_LOOK_SECONDS:g} s; look whether the server runs and reaches its "
                "database"
            ) from None

    async def snapshot(self, snapshot: Snapshot) -> bool:
        """Keep a snapshot, unless a newer one is kept or the aggregate is deleted."""
        kept: bool = await self._call("snapshot", wire.SnapshotCall(*self._begin(), snapshot))
        return kept

    async def lookup(self, command_id: str) -> LookupResult:
        """Return the outcome of a command id; None when the store knows nothing of it."""
        found: LookupResult = await self._call("lookup", wire.LookupCall(*self._begin(), command_id))
        return found

    async def reject(self, command_id: str, error: ErrorData) -> LookupResult:
        """Write a tombstone for a command id, unless it has an outcome."""
        self._require_open()
        async with self._appends.held_back(command_id):
            known: LookupResult = await self._call("reject", wire.RejectCall(*self._begin(), command_id, error))
        return known

    async def lock(self, lock_id: str, *, owner: str, ttl: float, request: str | None = None) -> Lease | None:
        """Grant a leased lock for ``ttl`` seconds of the server's clock, or None while it is held.

        All sends of one call are one request, and are granted one lease. A grant of which nobody hears stays until its
        time is over: that of a caller who gave up, or of a send that arrives after the lock was given back.
        """
        call = wire.LockCall(*self._begin(), lock_id, owner, ttl, request or new_id())
        lease: Lease | None = await self._call("lock", call)
        return lease

    async def renew(self, lease: Lease, *, ttl: float) -> bool:
        """Extend a lease; False when it is lost."""
        held: bool = await self._call("renew", wire.RenewCall(*self._begin(), lease, ttl))
        return held

    async def unlock(self, lease: Lease) -> bool:
        """Give a lock back; False when the lease was lost before."""
        held: bool = await self._call("unlock", wire.UnlockCall(*self._begin(), lease))
        return held

    async def search(
        self,
        criteria: EventFilter,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int = 100,
        descending: bool = False,
        max_bytes: int = MAX_READ_BYTES,
    ) -> Found:
        """Return events that match, with positions between ``after`` and ``before`` (both exclusive)."""
        call = wire.SearchCall(*self._begin(), criteria, after, before, limit, descending, max_bytes)
        found: Found = await self._call("search", call)
        return found

    async def event(self, position: int) -> EventRecord | None:
        """Return the event at a position; None when there is none, or it was purged."""
        found: EventRecord | None = await self._call("event", wire.EventCall(*self._begin(), position))
        return found

    async def info(self) -> StoreInfo:
        """Describe the store."""
        info: StoreInfo = await self._call("info", wire.Call(*self._begin()))
        return info

    async def verify(self, progress: Progress = None) -> VerifyReport:
        """Read the whole store, as of one instant, and report each broken invariant; the server does the reading."""
        status = await self._job("verify", wire.Call(*self._begin()), progress)
        if status.verified is None:
            raise _without_report("verification")
        return status.verified

    async def purge(self, *, deleted_before: int, dry_run: bool = False, progress: Progress = None) -> PurgeReport:
        """Remove the events of aggregates that were deleted before a moment (microseconds since 1970)."""
        status = await self._job("purge", wire.PurgeCall(*self._begin(), deleted_before, dry_run), progress)
        if status.purged is None:
            raise _without_report("purge")
        return status.purged

    # Inside ------------------------------------------------------------------------------------------------------

    async def _call(self, name: str, call: wire.Call, operation: Operation | None = None) -> Any:
        self._require_open()
        return await self._requests.call(name, call, operation=operation)

    async def _job(self, name: str, call: wire.Call, progress: Progress) -> wire.JobStatus:
        """Start a long operation on one server, ask it until it is done, and return its last answer."""
        started: wire.JobStarted = await self._call(name, call)
        done = False
        try:
            while True:
                status: wire.JobStatus = await self._call(started.name, wire.JobCall(*self._begin()), wire.JOB)
                if progress is not None:
                    for step in status.progress:
                        progress(*step)
                done = status.done
                if done:
                    return status
                await asyncio.sleep(_JOB_POLL_SECONDS)
        finally:
            if not done and self._open:
                with suppress(EventoError, TimeoutError):  # a server that does not hear it ends the job by itself
                    async with asyncio.timeout(_JOB_CANCEL_SECONDS):
                        await self._call(started.name, wire.JobCall(*self._begin(), cancel=True), wire.JOB)

    async def _look_again(self) -> None:
        """After a reconnect: is it the same store, and how far is it?"""
        head = self._head.position
        try:
            call = wire.Call(wire.FORMAT, self._begin()[1], None)
            identity: wire.Identity = await self._requests.call("identity", call)
        except EventoError as error:
            logger.warning("the store could not be asked for its head after a reconnect: %s", error)
            return
        known = self._known_identity()
        self._mismatch = None
        if (identity.store_id, identity.epoch) != (known.store_id, known.epoch):
            self._mismatch = (
                f"the server keeps the store {identity.store_id} (epoch {identity.epoch}) now, and this bundle began "
                f"with {known.store_id} (epoch {known.epoch}): restart the bundle, or point the server at its store"
            )
        elif identity.head < head:
            self._mismatch = (
                f"the store {identity.store_id} of the server ends at position {identity.head} now, this bundle has "
                f"seen position {head}: it was replaced by an older copy; put the newer one back"
            )
        if self._mismatch is not None:
            logger.error("%s", self._mismatch)
            self._head.wake()
        else:
            self._head.seen(identity.head)

    def _known_identity(self) -> wire.Identity:
        if self._identity is None:
            raise _closed()
        return self._identity

    def _require_open(self) -> None:
        if not self._open:
            raise _closed()
        if self._mismatch is not None:
            raise StoreMismatch(self._mismatch)


def _without_report(what: str) -> StoreUnavailable:
    return StoreUnavailable(f"the server ended the {what} without a report: look at its log, and ask again")


def _closed() -> StoreUnavailable:
    return StoreUnavailable("the store of the server is not open: use it inside `async with`")
