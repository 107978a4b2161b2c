"""The consumers of a cluster, as the instances of its bundles tell."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from evento.cli.cluster import ask_registry, connected
from evento.cli.errors import CommandFailed
from evento.cli.output import note
from evento.consumers import ConsumerId, ConsumerState, ConsumerStatus, DeadEvent
from evento.consumers.administration import find_consumer
from evento.consumers.views import dead_event_of, name_of, status_of
from evento.errors import EventoError, error_from_data
from evento.messages.consumers import ConsumerCall, ConsumersCall, ConsumerView, DeadEventsCall, SelectionCall
from evento.messages.registration import InstanceView

if TYPE_CHECKING:
    from evento.gateway.nats import NatsConnection

__all__ = ["ClusterConsumers", "cluster_consumers"]

LOOK_SECONDS = 5.0
WORK_SECONDS = 70.0
_ASKED_AT_A_TIME = 32
_PAGE = 500
_WEIGHT = {ConsumerState.STOPPED: 0, ConsumerState.STARTING: 1, ConsumerState.STANDBY: 2}
"""Who works for a consumer knows more of it than a standby."""


class _Seen(NamedTuple):
    """A consumer as one instance sees it."""

    instance: InstanceView
    status: ConsumerStatus


@asynccontextmanager
async def cluster_consumers(arguments: argparse.Namespace, address: str) -> AsyncIterator[ClusterConsumers]:
    """Ask all living instances for their consumers: those of one bundle (``--bundle``), or of all.

    :raises CommandFailed: there is none, or none answers.
    """
    from evento.gateway.nats.registry import ViewCall

    async with connected(arguments, address) as connection:
        instances: Sequence[InstanceView] = await ask_registry(connection, "view", ViewCall(arguments.bundle))
        if not instances:
            whose = "no bundle runs" if arguments.bundle is None else f"no instance of {arguments.bundle} runs"
            raise CommandFailed(
                f"{whose} in the cluster {connection.subjects.cluster!r} that could be asked for its consumers: start "
                "one, or read their state with --store and --consumers"
            )
        yield await ClusterConsumers.ask(connection, instances)


class ClusterConsumers:
    """Consumers that instances have told of; what is wanted of one is asked of the instance that works for it."""

    def __init__(self, connection: NatsConnection, seen: Iterable[_Seen]) -> None:
        self._connection = connection
        self._seen: dict[ConsumerId, list[_Seen]] = {}
        for one in seen:
            self._seen.setdefault(one.status.id, []).append(one)
        for views in self._seen.values():
            views.sort(key=lambda view: -_WEIGHT.get(view.status.state, 3))

    @classmethod
    async def ask(cls, connection: NatsConnection, instances: Sequence[InstanceView]) -> ClusterConsumers:
        """Ask instances for their consumers, side by side; one that does not answer is named on standard error."""
        places = asyncio.Semaphore(_ASKED_AT_A_TIME)

        async def consumers_of(instance: InstanceView) -> list[_Seen] | Exception:
            async with places:
                try:
                    return [_Seen(instance, status_of(view)) for view in await _views(connection, instance)]
                except (CommandFailed, EventoError, ValueError) as error:
                    return error

        answers = await asyncio.gather(*(consumers_of(instance) for instance in instances))
        failures = [answer for answer in answers if isinstance(answer, Exception)]
        if len(failures) == len(answers):
            raise failures[0]
        for failure in failures:
            note(f"evento: {failure}")
        return cls(connection, (one for answer in answers if isinstance(answer, list) for one in answer))

    @property
    def administration(self) -> ClusterConsumers:
        """Where everything is asked for."""
        return self

    async def status(self, consumer: ConsumerId) -> ConsumerStatus:
        """Return where a consumer stands."""
        return self._seen[consumer][0].status

    async def is_running(self, consumer: ConsumerId) -> bool:
        """Whether a bundle works for the consumer now: instances that do not live have not been asked."""
        return True

    async def list(self) -> Sequence[ConsumerStatus]:
        """Return where each consumer stands."""
        return [self._seen[consumer][0].status for consumer in sorted(self._seen)]

    async def find(
        self, component: str, *, version: int | None = None, context: str | None = None, bundle: str | None = None
    ) -> ConsumerId:
        """Return the one consumer of a component, where need be of that version, context and bundle."""
        known = sorted(self._seen)
        return find_consumer(known, component, version=version, context=context, bundle=bundle)

    async def pause(self, consumer: ConsumerId) -> None:
        """Let a consumer begin no further event."""
        await self._work(consumer, "pause", ConsumerCall(name_of(consumer)))

    async def resume(self, consumer: ConsumerId) -> None:
        """Let a consumer go on."""
        await self._work(consumer, "resume", ConsumerCall(name_of(consumer)))

    async def dead(
        self,
        consumer: ConsumerId,
        *,
        position: int | None = None,
        key: str | None = None,
        event_name: str | None = None,
        error_type: str | None = None,
        waiting: bool | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> Sequence[DeadEvent]:
        """Return dead events that match, up to ``limit``."""
        found: list[DeadEvent] = []
        call = DeadEventsCall(
            name_of(consumer), position=position, key=key, event_name=event_name, error_type=error_type, waiting=waiting
        )
        while len(found) < limit:
            wanted = min(limit - len(found), _PAGE)
            page = await self._work(consumer, "dead", msgspec.structs.replace(call, after=after, limit=wanted))
            found += map(dead_event_of, page.events)
            if not page.events or (len(page.events) < wanted and not page.more):
                break
            after = found[-1].position
        return found

    async def retry(self, consumer: ConsumerId, position: int | None = None, **conditions: Any) -> int:
        """Let dead events be handled again; return how many."""
        return await self._select(consumer, "retry", position, conditions)

    async def cancel_retry(self, consumer: ConsumerId, position: int | None = None, **conditions: Any) -> int:
        """Take back what :meth:`retry` asked for; return how many match."""
        return await self._select(consumer, "cancel-retry", position, conditions)

    async def discard(self, consumer: ConsumerId, position: int | None = None, **conditions: Any) -> int:
        """Give events up; return how many."""
        return await self._select(consumer, "discard", position, conditions)

    async def _select(
        self, consumer: ConsumerId, operation: str, position: int | None, conditions: dict[str, Any]
    ) -> int:
        call = SelectionCall(name_of(consumer), position=position, **conditions)
        count: int = await self._work(consumer, operation, call)
        return count

    async def _work(self, consumer: ConsumerId, operation: str, call: msgspec.Struct) -> Any:
        """Ask the instance that works for the consumer; when it is gone, the next one that knows it."""
        *others, last = [seen.instance for seen in self._seen[consumer]]
        for instance in others:
            try:
                return await _ask(self._connection, instance, operation, call, seconds=WORK_SECONDS)
            except _Gone:
                continue
        return await _ask(self._connection, last, operation, call, seconds=WORK_SECONDS)


class _Gone(CommandFailed):
    """Nobody is there any more; nothing has happened."""


async def _views(connection: NatsConnection, instance: InstanceView) -> list[ConsumerView]:
    found: list[ConsumerView] = []
    while True:
        page = await _ask(connection, instance, "consumers", ConsumersCall(skip=len(found)), seconds=LOOK_SECONDS)
        found += page.consumers
        if not page.more or not page.consumers:
            return found


async def _ask(
    connection: NatsConnection, instance: InstanceView, operation: str, call: msgspec.Struct, *, seconds: float
) -> Any:
    from evento.gateway.nats import NoResponders
    from evento.gateway.nats.administration import ADMINISTRATION
    from evento.gateway.nats.calls import encode

    who = f"the instance {instance.instance_id} of {instance.bundle_id} on {instance.host}"
    subject = connection.subjects.instance(instance.bundle_id, instance.instance_id, operation)
    try:
        data = await connection.request(subject, encode(call), asyncio.get_running_loop().time() + seconds)
    except NoResponders:
        raise _Gone(f"{who} is not there any more, or only starts") from None
    except TimeoutError:
        raise CommandFailed(
            f"{who} has not answered within {seconds:g} s; what was asked for may have been done, and can be asked for "
            "again"
        ) from None
    answer = ADMINISTRATION[operation].decode_answer(data)
    if answer.error is not None:
        raise error_from_data(answer.error)
    return answer.value
