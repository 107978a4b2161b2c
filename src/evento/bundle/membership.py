"""Membership: a bundle's place in the registry of the servers, from registration to leave."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any, TypeAlias

import msgspec

from evento.errors import (
    AuthenticationError,
    DefinitionError,
    EventoError,
    NotFound,
    Overloaded,
    RequestTimeout,
    StoreUnavailable,
    TooManyPendingRequests,
    error_from_data,
)
from evento.gateway.nats import ClusterClock, NatsConnection, NoResponders
from evento.gateway.nats.calls import Answer, encode
from evento.gateway.nats.registry import REGISTRY, SessionCall, TimeCall
from evento.messages import now_micros
from evento.messages.registration import BundleDescription, Register, Registered, Session

__all__ = ["Membership"]

logger = logging.getLogger("evento.bundle")

_REQUEST_SECONDS = 5.0
_LEAVE_SECONDS = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 3.0
_REMIND_SECONDS = 15.0
_BEATS_PER_LEASE = 3
_TOO_MUCH = (Overloaded, TooManyPendingRequests)

Change: TypeAlias = Callable[[], Awaitable[None]]


class Membership:
    """Registers an instance, keeps its lease, and leaves.

    Entering registers the instance, not yet enabled, and waits as long as ``start_timeout`` for a server to
    acknowledge it. Afterwards heartbeats keep the lease, and every reconnect registers again: a server that forgot
    the instance knows it then. What is told is told in its order: one request after another.

    An instance that was away for longer than its lease may find that another bundle has one of its names now: it is
    ``refused``, and tries again until it is ``accepted``.

    :param clock: is corrected by what the servers answer.
    :param start_timeout: seconds that entering and enabling wait for an answer; None: for ever.
    :param refused: called when an enabled instance must not take requests any more.
    :param accepted: called when it may again.
    """

    def __init__(
        self,
        connection: NatsConnection,
        description: BundleDescription,
        *,
        instance_id: str,
        clock: ClusterClock,
        start_timeout: float | None = None,
        refused: Change | None = None,
        accepted: Change | None = None,
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._start_timeout = start_timeout
        self._refused = refused or _nothing
        self._accepted = accepted or _nothing
        self._is_refused = False
        self._register = Register(
            description,
            instance_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=now_micros(),
        )
        self._enabled = False
        self._registered: Registered | None = None
        self._task: asyncio.Task[None] | None = None
        self._again = asyncio.Event()
        self._asking = asyncio.Lock()

    @property
    def session(self) -> Session:
        """The registration that counts now."""
        if self._registered is None:
            raise StoreUnavailable("the bundle is not registered at a server")
        return self._registered.session

    async def __aenter__(self) -> Membership:
        """Register.

        :raises DefinitionError: another bundle handles one of the commands or queries.
        :raises AuthenticationError: the token does not allow this bundle, or one of its names.
        :raises StoreUnavailable: no server acknowledged within ``start_timeout``.
        """
        await self._until_answered("registered", self._register_again)
        self._remove = self._connection.on_reconnect(self._again.set)
        self._task = asyncio.create_task(self._keep(), name="evento-membership")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Leave; a server that cannot be reached will learn it by the lease."""
        self._remove()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        with suppress(EventoError, NoResponders, TimeoutError):
            await self._ask("leave", self._of_session(), seconds=_LEAVE_SECONDS)

    async def enable(self) -> None:
        """Tell the servers that the instance takes requests; returns when it is acknowledged.

        :raises StoreUnavailable: no server acknowledged within ``start_timeout``.
        """
        self._enabled = True
        await self._until_answered("enabled", self._enable_now)

    async def disable(self) -> None:
        """Tell the servers that the instance takes no more requests, if one can be reached at once."""
        self._enabled = False
        with suppress(EventoError, NoResponders, TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS), self._asking:
                await self._ask("disable", self._of_session(), seconds=_LEAVE_SECONDS)

    async def _enable_now(self) -> None:
        async with self._asking:
            try:
                await self._ask("enable", self._of_session())
            except NotFound:
                await self._register_now()  # with the flag

    async def _keep(self) -> None:
        """Beat, and register again when the connection was lost or the server does not know the session."""
        while True:
            lease = self._registered.lease if self._registered is not None else 1.0
            with suppress(TimeoutError):
                async with asyncio.timeout(lease / _BEATS_PER_LEASE):
                    await self._again.wait()
            await self._renew()

    async def _renew(self) -> None:
        """Beat, or register again where that is due; once more until it is acknowledged."""
        told = ""
        for pause in _pauses():
            try:
                await (self._register_again() if self._again.is_set() else self._beat())
                if self._is_refused and self._enabled:
                    await self._accepted()
                self._is_refused = False
            except (DefinitionError, AuthenticationError) as error:
                reason = _reason(error)
                if self._enabled and not self._is_refused:
                    self._is_refused = True
                    logger.error("this bundle takes no requests of others any more: %s", reason)
                    await self._refused()
            except (EventoError, NoResponders, TimeoutError) as error:
                reason = _reason(error)
            except Exception as error:
                logger.exception("the registration failed for a reason that is not foreseen")
                reason = repr(error)
            else:
                return
            if reason != told:
                told = reason
                logger.warning("the registration could not be renewed, it is tried again: %s", reason)
            await asyncio.sleep(pause)

    async def _beat(self) -> None:
        async with self._asking:
            try:
                self._registered = await self._ask("heartbeat", self._of_session())
            except NotFound:
                logger.info("the servers do not know this instance any more: it is registered again")
                await self._register_now()

    async def _register_again(self) -> None:
        async with self._asking:
            await self._register_now()

    async def _register_now(self) -> None:
        self._again.clear()
        call = msgspec.structs.replace(self._register, enabled=self._enabled)
        try:
            if not self._clock.is_known:
                await self._ask("time", TimeCall())  # without it no server would know when this has given up
            self._registered = await self._ask("register", call)
        except BaseException:
            self._again.set()  # not known, or not heard of: it is to be done again
            raise
        if call.enabled and not self._enabled:  # it was disabled while nobody answered
            self._again.set()

    async def _until_answered(self, what: str, attempt: Callable[[], Awaitable[None]]) -> None:
        told = float("-inf")
        now = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(self._start_timeout):
                for pause in _pauses():
                    try:
                        return await attempt()
                    except (NoResponders, TimeoutError, RequestTimeout, StoreUnavailable, *_TOO_MUCH) as error:
                        if now() - told >= _REMIND_SECONDS:
                            told = now()
                            logger.warning(
                                "waiting for an Evento Server that registers this bundle: %s", _reason(error)
                            )
                    await asyncio.sleep(pause)
        except TimeoutError:
            raise StoreUnavailable(
                f"no server {what} the bundle within {self._start_timeout:g} s: look whether one of the cluster "
                f"{self._connection.subjects.cluster!r} runs (cluster=), and reaches its database"
            ) from None

    def _of_session(self) -> SessionCall:
        session = self.session
        return SessionCall(session.bundle_id, session.instance_id, session.number)

    async def _ask(
        self, operation: str, call: Register | SessionCall | TimeCall, *, seconds: float = _REQUEST_SECONDS
    ) -> Any:
        wire = REGISTRY[operation]
        if not isinstance(call, TimeCall) and self._clock.is_known:
            until = self._clock.now() + seconds + self._clock.uncertainty
            call = msgspec.structs.replace(call, deadline=int(until * 1_000_000))
        sent = self._clock.reading()
        subject = self._connection.subjects.registration(self._register.description.bundle_id, operation)
        data = await self._connection.request(subject, encode(call), asyncio.get_running_loop().time() + seconds)
        received = self._clock.reading()
        answer = wire.decode_answer(data)
        if (time := _time_of(answer)) is not None:
            self._clock.correct(time / 1_000_000, sent, received)
        if answer.error is not None:
            raise error_from_data(answer.error)
        return answer.value


def _time_of(answer: Answer[Any]) -> int | None:
    """Return the cluster's time that an answer tells; so does the refusal of what came too late by it."""
    told = answer.value
    if answer.error is not None:
        told = answer.error.data.get("time")
    elif isinstance(told, Registered):
        told = told.time
    return told if type(told) is int else None


async def _nothing() -> None:
    pass


def _pauses() -> Iterator[float]:
    """Yield growing pauses, of random length: after an outage all bundles want to register at once."""
    pause = _FIRST_PAUSE
    while True:
        yield pause * random.uniform(0.5, 1.5)  # noqa: S311 - not a secret
        pause = min(2 * pause, _LONGEST_PAUSE)


def _reason(error: BaseException) -> str:
    match error:
        case NoResponders():
            return "a gateway answers, but no server behind it"
        case TimeoutError():
            return "no answer"
        case _:
            return str(error)
