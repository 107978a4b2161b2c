"""Delivery to sagas: an event finds the state that it is associated with, and what becomes of it."""

from __future__ import annotations

from collections.abc import AsyncIterable, Collection, Sequence
from typing import Any, cast

import msgspec

from evento.components import (
    ComponentDefinition,
    HandlerDefinition,
    Interceptor,
    SagaState,
    TracingAgent,
)
from evento.components.counting import CountOf
from evento.consumers.delivery import CheckpointScope, EventHandler, EventInjection, event_handlers
from evento.consumers.failures import SagaError, UndecodableEvent
from evento.consumers.port import ConsumerId, StoredSaga
from evento.consumers.saga_changes import NONE, SagaChanges
from evento.consumers.status import Standing
from evento.errors import PayloadError
from evento.gateway import CommandGateway, QueryGateway
from evento.messages import EventMessage, EventRecord, new_id, seal_state
from evento.messages.decodable import decoder_for

__all__ = ["SagaDelivery", "association_of"]


def association_of(name: str, value: object) -> str | None:
    """Return an association as it is compared and stored, ``name=value`` with the value as JSON; None without a value.

    :raises SagaError: the value is no single one.
    """
    if value is None or value is msgspec.UNSET:
        return None
    data = msgspec.json.encode(value)
    if data[:1] in b"{[":
        raise SagaError(
            f"{name} is {value!r:.100}, but a saga is found by a single value: give association_property= the name of "
            "a field that is a text, a number, a bool, an enum or an id",
            property=name,
        )
    return None if data == b"null" else f"{name}={data.decode()}"


class SagaDelivery:
    """Delivers to a saga: one event after another, each to the instance that has its association.

    The handler works on a decoded copy of the state, so that a failed attempt leaves nothing of what it changed; the
    new state commits with the checkpoint. Behind a dead event all events of the instance wait, by whichever of its
    associations they come.
    """

    def __init__(
        self,
        consumer: ConsumerId,
        component: ComponentDefinition,
        instance: object,
        *,
        standing: Standing,
        commands: CommandGateway | None = None,
        queries: QueryGateway | None = None,
        tracing: TracingAgent | None = None,
        interceptors: Sequence[Interceptor] = (),
        counts: CountOf | None = None,
    ) -> None:
        self.role = component.role
        self._injection = EventInjection(commands=commands, queries=queries, standing=standing, head=int)
        self._state = cast(type[SagaState], component.state)
        self._decoder = decoder_for(self._state)
        self._handlers = event_handlers(
            consumer, component, instance, tracing=tracing, interceptors=interceptors, counts=counts
        )
        self.names: tuple[str, ...] = tuple(self._handlers)
        self._groups: dict[str, str] = {}
        """The associations of sagas with dead events, and under which one their events wait."""

    def handler_of(self, event: EventRecord) -> HandlerDefinition:
        """Return the handler of an event."""
        return self._handlers[event.name].definition

    # Order behind dead events ------------------------------------------------------------------------------------

    def key_of(self, event: EventRecord) -> str | None:
        """Return the association by which the event comes, or the one under which events of its saga wait."""
        association = self._association_of(event)
        return None if association is None else self._groups.get(association, association)

    def _association_of(self, event: EventRecord) -> str | None:
        handler = self._handlers[event.name]
        try:
            return _association(handler, handler.read(event))
        except UndecodableEvent:
            return _association_in_json(handler, event)
        except Exception:  # what is wrong with it, its delivery tells
            return None

    async def begin(self, parked: AsyncIterable[tuple[str, EventRecord | None]], scope: CheckpointScope) -> None:
        """Take note of what waits since before, and by which associations.

        The key alone does not tell: a retried event may have taken that association off its saga.
        """
        self._groups.clear()
        async for key, event in parked:
            for association in (key, None if event is None else self._association_of(event)):
                if association is not None and association not in self._groups:
                    await self._hold(association, key, scope)

    async def hold(self, key: str, scope: CheckpointScope) -> None:
        """Take note that a key has a dead event now: it stands for all associations of its saga."""
        await self._hold(key, key, scope)

    async def _hold(self, association: str, key: str, scope: CheckpointScope) -> None:
        self._groups[association] = key
        try:
            saga = await scope.sagas.find(association)
            if saga is not None:
                self._groups.update(dict.fromkeys(_associations(self._decoded(saga)), key))
        except (PayloadError, SagaError):  # no event of the saga can be handled: its delivery tells
            return

    def release(self, held: Collection[str]) -> None:
        """Let go what waited by keys that have no more events in the queue."""
        self._groups = {association: key for association, key in self._groups.items() if key in held}

    # Delivery ----------------------------------------------------------------------------------------------------

    async def deliver(self, event: EventRecord, scope: CheckpointScope, attempt: int) -> None:
        """Handle an event, unless it concerns no saga."""
        handler, sagas, injection = self._handlers[event.name], scope.sagas, self._injection
        payload = handler.read(event)
        association = _association(handler, payload)
        if association is None:
            return
        saga = await sagas.find(association)
        if saga is None and not handler.definition.init:
            return
        state = injection.state = None if saga is None else self._decoded(saga)
        before = NONE if state is None else _associations(state)
        if saga is not None and association not in before:
            raise PayloadError(
                f"the stored state of the saga {saga.id} lacks the association {association} by which it was found: "
                "it was changed from outside",
                saga=saga.id,
            )
        result = await handler.run(EventMessage(payload, event), injection, attempt)
        state = self._checked(handler, state if result is None else result)
        if saga is None:
            if not state.ended:
                await self._keep(handler, new_id(), state, before, sagas)
        elif state.ended:
            sagas.remove(saga.id, before=before)
        else:
            await self._keep(handler, saga.id, state, before, sagas)

    def _decoded(self, saga: StoredSaga) -> SagaState:
        try:
            return cast(SagaState, self._decoder.decode(saga.state))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise PayloadError(
                f"the stored state of the saga {saga.id} is no {self._state.__name__} any more: {error}; give new "
                "fields a default, or raise the saga's version= to begin anew",
                saga=saga.id,
            ) from error

    def _checked(self, handler: EventHandler, state: Any) -> SagaState:
        name = handler.definition.id
        if state is None:
            raise SagaError(f"{name} has begun a saga, but returned no state: return a {self._state.__name__}")
        if not isinstance(state, self._state):
            raise SagaError(
                f"{name} has returned {state!r:.100}: return a {self._state.__name__}, or None to keep the state that "
                "it was given"
            )
        return state

    async def _keep(
        self, handler: EventHandler, id: str, state: SagaState, before: frozenset[str], sagas: SagaChanges
    ) -> None:
        name = handler.definition.id
        data = seal_state(state, self._decoder, f"state of {name}")
        after = _associations(state)
        if not after:
            raise SagaError(
                f"{name} has left the saga without an association, so that no event will ever find it: call "
                "state.set_association(...), or state.end()"
            )
        for association in sorted(after - before):
            other = await sagas.find(association)
            if other is not None and other.id != id:
                raise SagaError(
                    f"{name} has set the association {association}, which another saga has: an association belongs to "
                    "one saga at a time",
                    association=association,
                    saga=other.id,
                )
        sagas.put(id, data, before=before, after=after)
        group = next((self._groups[known] for known in before | after if known in self._groups), None)
        if group is not None:  # a dead event was handled at last, while later ones still wait
            self._groups.update(dict.fromkeys(after, group))


def _association(handler: EventHandler, payload: Any) -> str | None:
    name = cast(str, handler.definition.association_property)
    return association_of(name, getattr(payload, name))


def _association_in_json(handler: EventHandler, event: EventRecord) -> str | None:
    """Return the association of an event that does not fit its class, as far as it can be seen."""
    name = cast(str, handler.definition.association_property)
    try:
        fields = msgspec.json.decode(event.payload)
        return association_of(name, fields.get(name) if isinstance(fields, dict) else None)
    except (msgspec.MsgspecError, ValueError, RecursionError, SagaError):
        return None


def _associations(state: SagaState) -> frozenset[str]:
    texts = (association_of(name, value) for name, value in state.associations.items())
    return frozenset(text for text in texts if text is not None)
