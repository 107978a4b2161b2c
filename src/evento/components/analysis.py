"""Source analysis: which commands and queries each handler sends, and on which line.

Read from the source by its syntax tree: through gateways that are parameters, attributes kept by the constructor or
``self.commands``, through helper methods and local variables. What the source does not tell is reported, not guessed.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from types import FunctionType

from evento.components.definition import ComponentDefinition, HandlerDefinition
from evento.components.reading import SENDING, Frame, Reader
from evento.components.values import UNKNOWN, Value
from evento.messages import Command, Query

__all__ = ["GatewayCall", "Send", "Sends", "calls_in", "calls_of", "sends_of"]

_KINDS: dict[str, type] = {"commands": Command, "queries": Query}


@dataclass(frozen=True, slots=True, order=True)
class Send:
    """A place where a message is sent; ``name`` is the payload's wire name, of an unresolved send its source text."""

    name: str
    line: int
    file: str


@dataclass(frozen=True, slots=True)
class Sends:
    """What a handler sends, ordered by place."""

    commands: tuple[Send, ...] = ()
    queries: tuple[Send, ...] = ()
    unresolved: tuple[Send, ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayCall:
    """A call of a gateway: ``gateway`` is "commands" or "queries" ("" when a source is missing).

    ``handed_on``: no call, but the gateway is given to something that is not read.
    """

    gateway: str
    payload: Value
    text: str
    line: int
    file: str
    handed_on: bool = False


def sends_of(component: ComponentDefinition, handler: HandlerDefinition) -> Sends:
    """Return what a handler sends; read from the source once for each definition.

    Missing source is reported as unresolved.
    """
    found: dict[str, set[Send]] = {"commands": set(), "queries": set(), "": set()}
    for call in calls_of(component, handler):
        for cls in call.payload.payloads - call.payload.abstract:
            found[call.gateway].add(Send(cls.__evento__.name, call.line, call.file))  # type: ignore[attr-defined]
        if not call.payload.settled:
            found[""].add(Send(call.text, call.line, call.file))
    return Sends(_ordered(found["commands"]), _ordered(found["queries"]), _ordered(found[""]))


def calls_of(component: ComponentDefinition, handler: HandlerDefinition) -> tuple[GatewayCall, ...]:
    """Return the gateway calls of a handler and of what it calls, in no order."""
    if not component.analysed:
        reader = Reader(component.cls)
        for each in component.handlers:
            component.analysed[each.name] = tuple(_Search(reader).calls(inspect.unwrap(each.function)))
    calls: tuple[GatewayCall, ...] = component.analysed[handler.name]
    return calls


def calls_in(frame: Frame) -> Iterator[GatewayCall]:
    """Yield the gateway calls of one piece of source alone."""
    return _Search(frame.reader).in_frame(frame)


def _ordered(sends: Iterable[Send]) -> tuple[Send, ...]:
    return tuple(sorted(sends, key=lambda send: (send.file, send.line, send.name)))


class _Search:
    """Follows calls from one function to the next, each frame once, so that recursion ends."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._seen: set[Frame] = set()
        self._pending: list[Frame] = []
        self._missing: list[GatewayCall] = []

    def calls(self, start: FunctionType) -> Iterator[GatewayCall]:
        self._enter(start, {}, method=True)
        while self._pending or self._missing:
            yield from self._missing
            self._missing.clear()
            if self._pending and (frame := self._pending.pop()) not in self._seen:
                self._seen.add(frame)
                yield from self.in_frame(frame)

    def _enter(self, function: FunctionType, arguments: dict[str, Value], *, method: bool) -> None:
        try:
            read = self._reader.method if method else self._reader.function
            self._pending.append(read(function, arguments))
        except (OSError, TypeError):
            code = function.__code__
            text = f"the source of {function.__qualname__} is missing"
            self._missing.append(GatewayCall("", UNKNOWN, text, code.co_firstlineno, code.co_filename))

    def in_frame(self, frame: Frame) -> Iterator[GatewayCall]:
        for node in frame.nodes:
            if isinstance(node, ast.Call):
                yield from self._in_call(frame, node)

    def _in_call(self, frame: Frame, node: ast.Call) -> Iterator[GatewayCall]:
        called = frame.value(node.func)
        senders = called.senders or _named_sender(frame, node)
        for gateway in sorted(senders):
            yield _call(frame, node, gateway, frame.value(node.args[0]) if node.args else _by_keyword(frame, node))
        if senders:
            return
        followed = self._follow(frame, called, node.args, node.keywords)
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        for index, argument in enumerate(values):
            passed = frame.value(argument)
            # asyncio.TaskGroup, functools.partial and their like: a callable followed by its arguments.
            rest = node.args[index + 1 :]
            for gateway in sorted(passed.senders):
                yield _call(frame, node, gateway, frame.value(rest[0]) if rest else UNKNOWN)
            followed |= self._follow(frame, Value(methods=passed.methods), rest, [])
            if passed.gateways and not followed:
                for gateway in sorted(passed.gateways):
                    yield replace(_call(frame, node, gateway, UNKNOWN), handed_on=True)

    def _follow(self, frame: Frame, called: Value, args: list[ast.expr], keywords: list[ast.keyword]) -> bool:
        """Go on to methods of the same class, and to functions that are given a gateway or the instance."""
        for method in called.methods:
            self._enter(method, frame.arguments(args, keywords, method, skip=1), method=True)
        followed = bool(called.methods)
        for function in called.objects:
            if isinstance(function, FunctionType):
                given = frame.arguments(args, keywords, function)
                if any(value.gateways or value.senders or value.instance for value in given.values()):
                    self._enter(function, given, method=False)
                    followed = True
        return followed


def _named_sender(frame: Frame, node: ast.Call) -> frozenset[str]:
    """Tell a gateway whose type is not known by what it is given: ``anything.send(OrderPlaceCommand(...))``."""
    if not isinstance(node.func, ast.Attribute) or node.func.attr not in SENDING or not node.args:
        return frozenset()
    gateway = SENDING[node.func.attr]
    payloads = frame.value(node.args[0]).payloads
    told = bool(payloads) and all(issubclass(payload, _KINDS[gateway]) for payload in payloads)
    return frozenset({gateway}) if told else frozenset()


def _by_keyword(frame: Frame, node: ast.Call) -> Value:
    values = [frame.value(one.value) for one in node.keywords if one.arg in {"command", "query"}]
    return values[0] if values else UNKNOWN


def _call(frame: Frame, node: ast.Call, gateway: str, payload: Value) -> GatewayCall:
    return GatewayCall(gateway, payload, ast.unparse(node), node.lineno, frame.code.file)
