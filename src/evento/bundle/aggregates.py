"""How a domain command becomes an event: load, decide, fold, append; again when another was faster."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from datetime import datetime
from typing import Any, cast

from evento.bundle.boundaries import Boundaries, Hold
from evento.bundle.cache import CachedState, StateCache
from evento.bundle.folding import Folder
from evento.bundle.keys import check_key
from evento.bundle.outcomes import known_outcome
from evento.bundle.serving import answer_by
from evento.bundle.states import AggregateStates, deleted_error
from evento.components import (
    ComponentDefinition,
    HandlerDefinition,
    HandlerKind,
    HandlerRunner,
    Interceptor,
    TracingAgent,
)
from evento.errors import (
    AggregateAlreadyInitialized,
    AggregateNotInitialized,
    ConcurrencyConflict,
    HandlerError,
    PayloadError,
    WouldDeadlock,
    error_from_data,
)
from evento.gateway import CommandGateway, Handling, RequestSender
from evento.messages import (
    MAX_PAYLOAD_BYTES,
    CommandMessage,
    DomainCommand,
    DomainEvent,
    EventRecord,
    Metadata,
    Reply,
    Request,
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
    Conflict,
    Deleted,
    LookupResult,
    NewEvent,
    Refused,
    StateStore,
)

__all__ = ["AggregateRuntime"]

LONGEST_PAUSE = 0.02
"""Seconds, about, between two decisions of a command that others overtake each time."""


class CommandInjection:
    """What aggregate command handlers may ask for."""

    __slots__ = ("commands", "message", "state")

    def __init__(self, commands: CommandGateway, message: CommandMessage[Any], state: Any) -> None:
        self.commands = commands
        self.message = message
        self.state = state

    @property
    def metadata(self) -> Metadata:
        return self.message.metadata

    @property
    def timestamp(self) -> datetime:
        return self.message.timestamp


class AggregateRuntime:
    """Handles the domain commands of one aggregate component."""

    def __init__(
        self,
        definition: ComponentDefinition,
        instance: object,
        *,
        store: StateStore,
        commands: CommandGateway,
        sender: RequestSender,
        boundaries: Boundaries,
        cache: StateCache,
        knows: Callable[[str], object],
        tracing: TracingAgent | None,
        interceptors: Sequence[Interceptor],
        executors: dict[str, Executor],
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
    ) -> None:
        self._max_payload_bytes = max_payload_bytes
        self._definition = definition
        self._store = store
        self._commands = commands
        self._sender = sender
        self._boundaries = boundaries
        self._folder = Folder(definition, instance, knows=knows)
        self._states = AggregateStates(definition, self._folder, store=store, cache=cache)
        self._runners: dict[str, HandlerRunner] = {
            handler.payload_name: HandlerRunner(
                handler,
                instance,
                tracing=tracing,
                interceptors=interceptors,
                executor=executors[handler.executor] if handler.executor else None,
            )
            for handler in definition.handlers_of(HandlerKind.AGGREGATE_COMMAND)
        }

    async def handle(self, request: Request, deadline: float) -> Reply:
        """Handle one domain command."""
        runner = self._runners[request.name]
        command = self._command(runner.handler, request)
        aggregate_id, boundary = _keys(command, request.name)
        if boundary is None:
            return await self._decide_until_stored(runner, request, command, aggregate_id, None, deadline)
        if boundary in request.boundaries:
            raise WouldDeadlock(
                f"{request.name} waits for {boundary!r}, which the command that sent it holds: send it from a saga, or "
                "give it another lock_id",
                boundary=boundary,
            )
        turn = self._boundaries.enter(boundary)
        if turn is not None:
            await self._boundaries.wait(boundary, turn)
        # From here to the end this task holds the boundary; an append that outlives it hands the boundary on.
        hold = Hold(self._boundaries, boundary)
        try:
            return await self._decide_until_stored(runner, request, command, aggregate_id, hold, deadline)
        finally:
            hold.release()

    def _command(self, handler: HandlerDefinition, request: Request) -> DomainCommand[Any]:
        cls: Any = handler.payload
        if type(request.decoded) is cls:
            return cast(DomainCommand[Any], request.decoded)
        return cast(DomainCommand[Any], decode(cls, request.payload))

    async def _decide_until_stored(
        self,
        runner: HandlerRunner,
        request: Request,
        command: DomainCommand[Any],
        aggregate_id: str,
        hold: Hold | None,
        deadline: float,
    ) -> Reply:
        conflicts, base = 0, None
        while True:
            entry = None
            try:
                entry = await self._states.load(command, aggregate_id, hold, base=base)
                if conflicts:
                    # Others are fast. To read all events again and again would take longer each time, and lose each
                    # time; so the next attempt begins with this state, before a decision or a fold changes it.
                    base = entry.copy()
                append, state = await self._decide(runner, request, command, aggregate_id, hold, entry)
            except Exception as error:
                if entry is None or await self._states.is_current(aggregate_id, entry):
                    return await self._rejected(request, aggregate_id, error)
                command = decode(type(command), request.payload)
                continue
            outcome = await self._append(append, hold)
            match outcome:
                case Appended(record, boundary_version):
                    own = boundary_version if hold is not None and hold.boundary == aggregate_id else None
                    await self._states.keep(aggregate_id, entry, state, record, boundary_version=own)
                    return Reply(event=record)
                case Conflict():
                    conflicts += 1
                    try:
                        await self._back_off(request, aggregate_id, conflicts, deadline)
                    except ConcurrencyConflict as error:
                        return await self._rejected(request, aggregate_id, error)
                    command = decode(type(command), request.payload)
                case Deleted(deleted_at):
                    return await self._rejected(request, aggregate_id, deleted_error(aggregate_id, deleted_at))
                case _:
                    known = self._known(request, aggregate_id, cast("AlreadyStored | Refused", outcome))
                    return known if known is not None else Reply()

    # Deciding ----------------------------------------------------------------------------------------------------

    def _way_to_init(self) -> str:
        init = [name for name, runner in self._runners.items() if runner.handler.init]
        if init:
            return f"send its init command first: {' or '.join(init)}"
        return (
            f"no command can make one, for {self._definition.name} has no init handler: declare the handler of its "
            "first command with @aggregate_command_handler(init=True)"
        )

    async def _decide(
        self,
        runner: HandlerRunner,
        request: Request,
        command: DomainCommand[Any],
        aggregate_id: str,
        hold: Hold | None,
        entry: CachedState,
    ) -> tuple[Append, Any]:
        handler = runner.handler
        if entry.version == 0 and not handler.init:
            raise AggregateNotInitialized(
                f"{request.name}: {aggregate_id!r} does not exist yet; {self._way_to_init()}",
                aggregate_id=aggregate_id,
            )
        if entry.version > 0:
            if entry.state is not None and entry.state.deleted:
                raise deleted_error(aggregate_id, None)
            if handler.init:
                raise AggregateAlreadyInitialized(
                    f"{request.name}: {aggregate_id!r} exists already (version {entry.version})",
                    aggregate_id=aggregate_id,
                    version=entry.version,
                )
        message = CommandMessage(command, request)
        handling = Handling(
            message,
            handler=handler.id,
            metadata=request.metadata,
            may_send=True,
            may_query=False,
            boundaries=request.boundaries if hold is None else (*request.boundaries, hold.boundary),
            depth=request.depth + 1,
            attempt=request.attempt,
        )
        event = await runner.run(command, CommandInjection(self._commands, message, entry.state), handling)
        if type(event) not in handler.results:
            raise HandlerError(
                f"{handler.id} ({handler.source}) returned {type(event).__name__}, but its return hint allows "
                f"{' or '.join(result.__name__ for result in handler.results)}: return exactly one event",
            )
        return self._forge(request, event, aggregate_id, hold, entry, self._sender.metadata(None, handling))

    def _forge(
        self,
        request: Request,
        event: DomainEvent,
        aggregate_id: str,
        hold: Hold | None,
        entry: CachedState,
        metadata: Metadata,
    ) -> tuple[Append, Any]:
        """Make the event's record and fold it, so that state and deletion are known before the append."""
        payload, copy = seal(event, self._max_payload_bytes)
        definition = type(event).__evento__
        record = EventRecord(
            position=0,
            context=copy.context,
            aggregate_id=aggregate_id,
            version=entry.version + 1,
            name=definition.name,
            schema_version=definition.version,
            kind="domain",
            payload=payload,
            metadata=metadata.to_json(),
            event_id=new_id(),
            command_id=request.message_id,
            correlation_id=request.correlation_id,
            causation_id=request.message_id,
            timestamp=now_micros(),
        )
        state = self._folder.apply(entry.state, copy, record)
        boundary = None if hold is None else hold.boundary
        append = Append(
            event=NewEvent(
                context=record.context,
                aggregate_id=aggregate_id,
                name=record.name,
                schema_version=record.schema_version,
                kind="domain",
                payload=payload,
                metadata=record.metadata,
                event_id=record.event_id,
                command_id=record.command_id,
                correlation_id=record.correlation_id,
                causation_id=record.causation_id,
                timestamp=record.timestamp,
            ),
            expected_version=None if hold is None else entry.version,
            boundary=boundary,
            expected_boundary_version=(
                None if hold is None else entry.boundary_version if boundary == aggregate_id else hold.version
            ),
            deletes=state is not None and state.deleted,
        )
        return append, state

    # Storing -----------------------------------------------------------------------------------------------------

    async def _append(self, append: Append, hold: Hold | None) -> Any:
        """Append, shielded: whoever waits may be cancelled, the append comes to its definite end."""
        future = self._store.append(append)
        if hold is not None:
            hold.until = future
        outcome = await asyncio.shield(future)
        if hold is not None:
            hold.until = None
        return outcome

    # Answering ---------------------------------------------------------------------------------------------------

    async def _rejected(self, request: Request, aggregate_id: str, error: Exception) -> Reply:
        """Answer a failure, unless the command took effect in a former attempt."""
        reply = self._known(request, aggregate_id, await known_outcome(self._store, request, error))
        if reply is None:
            raise error
        return reply

    def _known(self, request: Request, aggregate_id: str, known: LookupResult) -> Reply | None:
        """Return the reply of a command id that the store knows; None when it knows nothing of it."""
        if known is None:
            return None
        if isinstance(known, Refused):
            raise error_from_data(known.error)
        results = {definition_of(result).name for result in self._runners[request.name].handler.results}
        if known.aggregate_id != aggregate_id or known.name not in results:
            raise PayloadError(
                f"{request.name}: the message id {request.message_id!r} belongs to another command, which stored "
                f"{known.name!r} for {known.aggregate_id!r}: use one id for one command",
                message_id=request.message_id,
            )
        if known.record is None:
            raise deleted_error(aggregate_id, None)
        return Reply(event=known.record)

    async def _back_off(self, request: Request, aggregate_id: str, conflicts: int, deadline: float) -> None:
        pause = 0.0 if conflicts == 1 else random.uniform(0.5, 1.5) * min(0.001 * 2**conflicts, LONGEST_PAUSE)  # noqa: S311
        if asyncio.get_running_loop().time() + pause >= answer_by(deadline):
            raise ConcurrencyConflict(
                f"{request.name}: {aggregate_id!r} changed {conflicts} times while it was decided, until the deadline; "
                "nothing was stored, send it again",
                aggregate_id=aggregate_id,
                conflicts=conflicts,
            )
        if pause:
            await asyncio.sleep(pause)


def _keys(command: DomainCommand[Any], name: str) -> tuple[str, str | None]:
    """Return the aggregate id and the lock id, checked."""
    aggregate_id, lock_id = command.aggregate_id, command.lock_id
    check_key(name, "aggregate id", aggregate_id)
    if lock_id is not None and lock_id is not aggregate_id:
        check_key(name, "lock_id", lock_id)
    return aggregate_id, lock_id
