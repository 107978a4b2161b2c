"""How a service command runs: under its leased lock if it has one, its event stored at most once."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, cast

from evento.bundle.boundaries import Boundaries
from evento.bundle.keys import check_key
from evento.bundle.outcomes import known_outcome
from evento.bundle.serving import answer_by
from evento.bundle.tasks import Tasks
from evento.components import (
    ComponentDefinition,
    FencingToken,
    HandlerDefinition,
    HandlerKind,
    HandlerRunner,
    Interceptor,
    TracingAgent,
)
from evento.errors import (
    AggregateDeleted,
    ConcurrencyConflict,
    HandlerError,
    LeaseLost,
    Overloaded,
    PayloadError,
    StoreUnavailable,
    WouldDeadlock,
    error_from_data,
)
from evento.gateway import CommandGateway, Handling, RequestSender
from evento.messages import (
    MAX_PAYLOAD_BYTES,
    CommandMessage,
    Metadata,
    Reply,
    Request,
    ServiceCommand,
    decode,
    definition_of,
    new_id,
    now_micros,
    seal,
)
from evento.state_store import (
    AlreadyStored,
    Append,
    Appended,
    Deleted,
    Lease,
    LeaseIsLost,
    LookupResult,
    NewEvent,
    Refused,
    StateStore,
)

__all__ = ["ServiceRuntime"]

LEASE_SECONDS = 30.0


class ServiceInjection:
    """What service command handlers may ask for."""

    __slots__ = ("_token", "commands", "message")

    def __init__(self, commands: CommandGateway, message: CommandMessage[Any], token: int | None) -> None:
        self.commands = commands
        self.message = message
        self._token = token

    @property
    def metadata(self) -> Metadata:
        return self.message.metadata

    @property
    def timestamp(self) -> datetime:
        return self.message.timestamp

    @property
    def fencing_token(self) -> FencingToken:
        if self._token is None:
            raise HandlerError(
                f"{self.message.name} has no lock_id, so there is no FencingToken to inject: give it one"
            )
        return FencingToken(self._token)


class ServiceRuntime:
    """Handles the commands of one service component."""

    def __init__(
        self,
        definition: ComponentDefinition,
        instance: object,
        *,
        owner: str,
        store: StateStore,
        commands: CommandGateway,
        sender: RequestSender,
        boundaries: Boundaries,
        tasks: Tasks,
        tracing: TracingAgent | None,
        interceptors: Sequence[Interceptor],
        executors: dict[str, Executor],
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
    ) -> None:
        self._max_payload_bytes = max_payload_bytes
        self._owner = owner
        self._store = store
        self._commands = commands
        self._sender = sender
        self._boundaries = boundaries
        self._tasks = tasks
        self._runners: dict[str, HandlerRunner] = {
            handler.payload_name: HandlerRunner(
                handler,
                instance,
                tracing=tracing,
                interceptors=interceptors,
                executor=executors[handler.executor] if handler.executor else None,
            )
            for handler in definition.handlers_of(HandlerKind.COMMAND)
        }

    async def handle(self, request: Request, deadline: float) -> Reply:
        """Handle one service command."""
        runner = self._runners[request.name]
        cls: Any = runner.handler.payload
        command: ServiceCommand[Any] = request.decoded if type(request.decoded) is cls else decode(cls, request.payload)
        lock_id = command.lock_id
        if lock_id is None:
            return await self._run(runner, request, command, None)
        check_key(request.name, "lock_id", lock_id)
        async with self._locked(request, lock_id, deadline) as lease:
            return await self._run(runner, request, command, lease)

    async def _run(
        self, runner: HandlerRunner, request: Request, command: ServiceCommand[Any], lease: Lease | None
    ) -> Reply:
        handler = runner.handler
        lock_id = None if lease is None else lease.lock_id
        if request.keyed:
            known = self._known(handler, request, lock_id, await self._store.lookup(request.message_id))
            if known is not None:
                return known
        message = CommandMessage(command, request)
        handling = Handling(
            message,
            handler=handler.id,
            metadata=request.metadata,
            may_send=True,
            may_query=False,
            boundaries=request.boundaries if lock_id is None else (*request.boundaries, _service_boundary(lock_id)),
            depth=request.depth + 1,
            attempt=request.attempt,
        )
        injection = ServiceInjection(self._commands, message, None if lease is None else lease.token)
        try:
            event = await runner.run(command, injection, handling)
            if event is None and handler.returns_none:
                return Reply()
            append = self._forge(handler, request, event, lease, self._sender.metadata(None, handling))
        except Exception as error:
            return await self._failed(handler, request, lock_id, error)
        return await self._publish(handler, request, append, lock_id)

    def _forge(
        self, handler: HandlerDefinition, request: Request, event: Any, lease: Lease | None, metadata: Metadata
    ) -> Append:
        """Make the append of what the handler has returned."""
        if type(event) not in handler.results:
            allowed = [result.__name__ for result in handler.results] + ["None"] * handler.returns_none
            raise HandlerError(
                f"{handler.id} ({handler.source}) returned {type(event).__name__}, but its return hint allows "
                f"{' or '.join(allowed)}"
            )
        payload, copy = seal(event, self._max_payload_bytes)
        definition = type(event).__evento__
        return Append(
            event=NewEvent(
                context=copy.context,
                aggregate_id=None if lease is None else lease.lock_id,
                name=definition.name,
                schema_version=definition.version,
                kind="service",
                payload=payload,
                metadata=metadata.to_json(),
                event_id=new_id(),
                command_id=request.message_id,
                correlation_id=request.correlation_id,
                causation_id=request.message_id,
                timestamp=now_micros(),
            ),
            lease=lease,
        )

    async def _publish(
        self, handler: HandlerDefinition, request: Request, append: Append, lock_id: str | None
    ) -> Reply:
        """Append, shielded: whoever waits may be cancelled, the append comes to its definite end."""
        outcome = await asyncio.shield(self._store.append(append))
        match outcome:
            case Appended(record):
                return Reply(event=record)
            case LeaseIsLost():
                raise LeaseLost(
                    f"{request.name} lost the lock {lock_id!r} while its handler ran; its event was not stored, what "
                    "it did outside stands: send it again with the same message_id",
                    lock_id=lock_id,
                )
            case Deleted():
                raise AggregateDeleted(
                    f"{request.name}: its lock_id {lock_id!r} is the id of a deleted aggregate", aggregate_id=lock_id
                )
            case _:
                known = self._known(handler, request, lock_id, cast("AlreadyStored | Refused", outcome))
                return known if known is not None else Reply()

    async def _failed(
        self, handler: HandlerDefinition, request: Request, lock_id: str | None, error: Exception
    ) -> Reply:
        known = await known_outcome(self._store, request, error)
        reply = self._known(handler, request, lock_id, known)
        if reply is None:
            raise error
        return reply

    def _known(
        self, handler: HandlerDefinition, request: Request, lock_id: str | None, known: LookupResult
    ) -> Reply | None:
        if known is None:
            return None
        if isinstance(known, Refused):
            raise error_from_data(known.error)
        results = {definition_of(result).name for result in handler.results}
        if known.name not in results or known.aggregate_id != lock_id:
            raise PayloadError(
                f"{request.name}: the message id {request.message_id!r} belongs to another command, which stored "
                f"{known.name!r}: use one id for one command",
                message_id=request.message_id,
            )
        return Reply(event=known.record)

    @asynccontextmanager
    async def _locked(self, request: Request, lock_id: str, deadline: float) -> AsyncIterator[Lease]:
        """Hold the leased lock of a service command, renewed until the end of the block."""
        boundary = _service_boundary(lock_id)
        if boundary in request.boundaries:
            raise WouldDeadlock(
                f"{request.name} waits for the lock {lock_id!r}, which the command that sent it holds", boundary=lock_id
            )
        turn = self._boundaries.enter(boundary)
        if turn is not None:
            await self._boundaries.wait(boundary, turn)
        try:
            lease = await self._acquire(request, lock_id, deadline)
            renewal = self._tasks.start(self._renew(lease), name=f"renewal of the lock {lock_id!r}")
            try:
                yield lease
            finally:
                renewal.cancel()
                # A task of its own: neither cancelling the command keeps the lock, nor does a failure to give it back
                # take the place of the command's outcome.
                await asyncio.wait([self._tasks.start(self._unlock(lease, renewal), name=f"release of {lock_id!r}")])
        finally:
            self._boundaries.leave(boundary)

    async def _acquire(self, request: Request, lock_id: str, deadline: float) -> Lease:
        loop = asyncio.get_running_loop()
        pause = 0.005
        while True:
            lease = await self._ask(lock_id)
            if lease is not None:
                return lease
            if loop.time() + pause >= answer_by(deadline):
                raise ConcurrencyConflict(
                    f"{request.name}: the lock {lock_id!r} was held by others until the deadline; nothing was done, "
                    "send it again",
                    lock_id=lock_id,
                )
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311
            pause = min(pause * 2, 0.25)

    async def _ask(self, lock_id: str) -> Lease | None:
        """Ask the store for a lock; one that is granted to a caller who was cancelled meanwhile is given back."""
        asking = self._tasks.start(
            self._store.lock(lock_id, owner=self._owner, ttl=LEASE_SECONDS), name=f"grant of the lock {lock_id!r}"
        )
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            self._tasks.start(self._give_back(asking), name=f"release of {lock_id!r}")
            raise

    async def _give_back(self, asking: asyncio.Task[Lease | None]) -> None:
        await asyncio.wait([asking])
        if not asking.cancelled() and asking.exception() is None and (lease := asking.result()) is not None:
            await self._store.unlock(lease)

    async def _renew(self, lease: Lease) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            # A lost lease needs no action here: the store refuses the append, whoever holds the lock now.
            with contextlib.suppress(StoreUnavailable, Overloaded):
                if not await self._store.renew(lease, ttl=LEASE_SECONDS):
                    return

    async def _unlock(self, lease: Lease, renewal: asyncio.Task[None]) -> None:
        await asyncio.wait([renewal])
        await self._store.unlock(lease)


def _service_boundary(lock_id: str) -> str:
    """Return the boundary of a service lock: a namespace of its own, apart from the aggregates' boundaries."""
    return f"service:{lock_id}"
