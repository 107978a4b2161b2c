"""What a component under test sends: recorded, and answered as the test says."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeAlias

from evento.components.hints import fits, show
from evento.errors import HandlerNotFound, error_to_data
from evento.gateway import InProcessBus
from evento.messages import (
    Command,
    CommandMessage,
    Event,
    EventMessage,
    EventRecord,
    Query,
    QueryMessage,
    Reply,
    Request,
    definition_of,
    result_type_of,
    seal_result,
)
from evento.testing.events import Stream, event_message

__all__ = ["Answers", "Recorder"]

Answers: TypeAlias = Mapping[type[Any], Any]
"""What commands and queries are answered with, by their class.

A value is the event or view itself, an exception to raise, or a function (plain or async) from the command or query to
one of them.
"""


class Recorder(InProcessBus):
    """The message bus of a component under test: keeps what is sent, and answers it.

    A command without an answer is answered with None. A query without one is
    :class:`~evento.errors.HandlerNotFound`, for there is no view to make up.

    What another attempt of a handler sends again has the same id and counts once. A command that gave an event gives
    the same one again, as the event store knows it.
    """

    def __init__(self, answers: Answers | None = None) -> None:
        super().__init__()
        self._answers: dict[tuple[str, str], tuple[type, Any]] = {}
        for cls, answer in (answers or {}).items():
            if not isinstance(cls, type) or not issubclass(cls, (Command, Query)):
                raise TypeError(f"answers= maps classes of commands and queries to their answers: {cls!r} is neither")
            kind = "command" if issubclass(cls, Command) else "query"
            self._answers[kind, definition_of(cls).name] = (cls, answer)
        self._stream = Stream()
        self._events: dict[str, type[Event]] = {}
        self.commands: list[CommandMessage[Any]] = []
        self.queries: list[QueryMessage[Any]] = []
        self._sent: set[tuple[str, bytes]] = set()
        self._given: dict[tuple[str, bytes], Reply] = {}

    def clear(self) -> None:
        """Forget what was sent."""
        self.commands.clear()
        self.queries.clear()
        self._sent.clear()
        self._given.clear()

    def event_class(self, name: str) -> type[Event] | None:
        """Return the class of an event that an answer has given."""
        return self._events.get(name)

    async def request(self, request: Request, deadline: float) -> Reply:
        """Record a request and answer it; errors arrive as they would from another bundle."""
        key = (request.message_id, request.payload)
        if key in self._given:
            return self._given[key]
        if key not in self._sent:
            self._sent.add(key)
            if request.kind == "command":
                self.commands.append(CommandMessage(request.decoded, request))
            else:
                self.queries.append(QueryMessage(request.decoded, request))
        try:
            reply = await self._answer(request)
            if reply.event is not None:
                self._given[key] = reply
            return reply
        except AssertionError:
            raise  # from the test itself, in a function that answers
        except Exception as error:
            return Reply(error=error_to_data(error))

    async def _answer(self, request: Request) -> Reply:
        cls, answer = self._answers.get((request.kind, request.name), (None, None))
        if cls is None and request.kind == "query":
            raise HandlerNotFound(
                f"the test has no answer for {request.name}: give it answers={{{request.name}: ...}}", name=request.name
            )
        answer = await _called(answer, request.decoded)
        if cls is None or (answer is None and request.kind == "command"):
            return Reply()
        if request.kind == "query":
            return Reply(view=seal_result(cls, answer))
        return Reply(event=self._event(cls, answer))

    def _event(self, command: type, answer: Any) -> EventRecord:
        message = answer if isinstance(answer, EventMessage) else None
        event = answer if message is None else message.payload
        declared = result_type_of(command)
        if not isinstance(event, Event) or not fits(type(event), declared):
            raise AssertionError(
                f"answers={{{command.__name__}: ...}}: {event!r} is no answer to this command, which gives "
                f"{'an event' if declared is Any else show(declared)}"
            )
        self._events[definition_of(type(event)).name] = type(event)
        return self._stream.place(message or event_message(event)).record


async def _called(answer: Any, payload: Any) -> Any:
    """Return what an answer comes to; raise it when it is an exception."""
    if callable(answer) and not isinstance(answer, type):
        answer = answer(payload)
        if inspect.isawaitable(answer):
            answer = await answer
    if isinstance(answer, BaseException) or (isinstance(answer, type) and issubclass(answer, BaseException)):
        raise answer
    return answer
