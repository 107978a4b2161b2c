"""What all tests of components have in common: the component under test, and what came of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, Self, TypeVar

import msgspec

from evento.bundle.injector import Injector, make_component
from evento.bundle.payload_registry import PayloadRegistry
from evento.components import (
    ComponentDefinition,
    HandlerDefinition,
    HandlerKind,
    Interceptor,
    Role,
    component_definition,
)
from evento.errors import EventoError, HandlerNotFound, error_from_data, error_to_data
from evento.gateway import CommandGateway, QueryGateway, RequestSender
from evento.messages import Command, CommandMessage, Payload, QueryMessage, definition_of, seal
from evento.testing.gateways import Answers, Recorder
from evento.testing.reports import NOT_SHOWN, Report, Words, show

__all__ = ["Outcome", "Subject", "Wrong", "json_copy"]

logger = logging.getLogger("evento.testing")

P = ParamSpec("P")
T = TypeVar("T")


class InlineExecutor(Executor):
    """Runs what is submitted at once, where it is submitted: handlers with ``executor=`` need no threads in a test."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run ``fn`` and return its outcome."""
        outcome: Future[T] = Future()
        try:
            outcome.set_result(fn(*args, **kwargs))
        except Exception as error:
            outcome.set_exception(error)
        return outcome


class Subject:
    """A component under test, with gateways that record what it sends.

    :raises DefinitionError: it is no component of this role, its payloads are declared wrongly, or it cannot be made.
    """

    def __init__(
        self,
        component: object,
        role: Role,
        *,
        injector: Injector,
        answers: Answers | None,
        timeout: float,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        cls = component if isinstance(component, type) else type(component)
        self.definition: ComponentDefinition = component_definition(cls)
        if self.definition.role is not role:
            raise self.definition.error(f"is no {role.value}: use {self.definition.role.value.lower()}_test()")
        self.payloads = PayloadRegistry()
        self.payloads.add_component(self.definition)
        self.timeout = timeout
        self.interceptors = tuple(interceptors)
        self.recorder = Recorder(answers)
        self.sender = RequestSender(self.recorder)
        self.commands = CommandGateway(self.sender, event_classes=self.recorder.event_class)
        self.queries = QueryGateway(self.sender)
        own = {CommandGateway: self.commands, QueryGateway: self.queries}
        self.instance: Any = make_component(self.definition, injector, own) if component is cls else component
        names = {handler.executor for handler in self.definition.handlers if handler.executor is not None}
        self.executors: dict[str, Executor] = dict.fromkeys(names, InlineExecutor())

    def handler_of(self, kind: HandlerKind, payload: object) -> HandlerDefinition:
        """Return the handler of a command or query.

        :raises HandlerNotFound: the component does not handle it.
        """
        handler = self.definition.handler_for(kind, name_of(payload))
        if handler is None:
            names = ", ".join(sorted(one.payload_name for one in self.definition.handlers_of(kind)))
            raise HandlerNotFound(
                f"{self.definition.name} does not handle {name_of(payload)}, only {names or 'nothing'}"
            )
        return handler


class Wrong(Exception):
    """A rule is broken that no expectation can allow; carries what the report shows."""

    def __init__(
        self, problem: str, expected: Any = NOT_SHOWN, got: Any = NOT_SHOWN, because: BaseException | None = None
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.expected = expected
        self.got = got
        self.because = because

    def failure(self, report: Report) -> AssertionError:
        """Return the error to raise."""
        return report.failure(self.problem, expected=self.expected, got=self.got, because=self.because)


class Outcome:
    """What came of a step: what was sent and which error was raised. Expectations return it, so they can be chained."""

    def __init__(self, report: Report, subject: Subject, error: Exception | None) -> None:
        self._report = report
        self._error = error
        self._error_is_expected = False
        self._commands = tuple(subject.recorder.commands)
        self._queries = tuple(subject.recorder.queries)
        if isinstance(error, AssertionError):
            raise error
        if error is not None:
            # For those who look at other things than this outcome, and wonder.
            logger.warning("%s raised %s on %s", report.component, show(error), report.when)

    @property
    def error(self) -> Exception | None:
        """What the handler has raised; None when it has not."""
        return self._error

    @property
    def commands(self) -> Sequence[CommandMessage[Any]]:
        """The commands that were sent, in their order, with their envelopes."""
        return self._commands

    @property
    def queries(self) -> Sequence[QueryMessage[Any]]:
        """The queries that were sent, in their order, with their envelopes."""
        return self._queries

    def expect_error(self, error: type[Exception], match: str | None = None, **data: Any) -> Self:
        """Expect that the handler has raised an error of this class.

        An error that is not one of Evento's may be expected as itself, or as the
        :class:`~evento.errors.HandlerError` that its sender sees.

        :param match: a regular expression to be found in the message.
        :param data: values that the error's data must have; there may be others.
        """
        __tracebackhide__ = True
        expected = Words(_description(error, match, data))
        if self._error is None:
            raise self._report.failure("no error was raised", expected=expected, got=self._got())
        if not _fits(self._error, error, match, data):
            raise self._report.failure(
                "another error was raised", expected=expected, got=self._error, because=self._error
            )
        self._error_is_expected = True
        return self

    def expect_commands(self, *commands: Command[Any]) -> Self:
        """Expect that exactly these commands were sent, in this order; without arguments: none."""
        __tracebackhide__ = True
        expected = [seal(command)[1] for command in commands]
        self._expect_success(expected)
        got = [message.payload for message in self._commands]
        if got != expected:
            raise self._report.failure(
                "other commands were sent", expected=expected or Words("no commands"), got=got or Words("no commands")
            )
        return self

    def _expect_success(self, expected: Any) -> None:
        """Fail when an error was raised that nothing has expected."""
        __tracebackhide__ = True
        if self._error is not None and not self._error_is_expected:
            raise self._report.failure("an error was raised", expected=expected, got=self._error, because=self._error)

    def _got(self) -> Any:
        """Return what there is instead of an error."""
        raise NotImplementedError


def json_copy(state: Any, state_type: Any, problem: str) -> Any:
    """Return a state as it comes back from where it is kept as JSON; :class:`Wrong` when it cannot be kept."""
    try:
        return msgspec.json.decode(msgspec.json.encode(state), type=state_type)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise Wrong(problem, state, error, error) from error


def name_of(payload: object) -> str:
    """Return the wire name of a payload.

    :raises TypeError: it is no payload.
    """
    if not isinstance(payload, Payload):
        raise TypeError(f"{payload!r} is no payload")
    return definition_of(type(payload)).name


def _description(error: type[Exception], match: str | None, data: dict[str, Any]) -> str:
    text = error.__name__
    if match is not None:
        text += f" with a message that matches {match!r}"
    if data:
        text += (" and " if match is not None else " with ") + ", ".join(f"{name}={data[name]!r}" for name in data)
    return text


def _fits(raised: Exception, error: type[Exception], match: str | None, data: dict[str, Any]) -> bool:
    if not isinstance(raised, error) and not isinstance(error_from_data(error_to_data(raised)), error):
        return False
    if match is not None and re.search(match, str(raised)) is None:
        return False
    own = raised.data if isinstance(raised, EventoError) else {}
    return all(name in own and own[name] == value for name, value in data.items())
