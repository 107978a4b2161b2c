"""What a failed expectation says: given, when, expected, got, and the difference."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from evento.components import AggregateState, SagaState
from evento.errors import EventoError
from evento.messages import Command, DomainCommand, Event, Query

__all__ = ["NOT_SHOWN", "Report", "Words", "same", "show", "show_step"]

_WIDTH = 96
_INDENT = "    "
NOT_SHOWN: Any = object()
# What the framework adds to payloads and states is noise while it is at its default.
_SILENT: Sequence[tuple[type, Mapping[str, object]]] = (
    (Event, {"context": "default", "force_telemetry": False}),
    (DomainCommand, {"invalidate_aggregate_caches": False, "invalidate_aggregate_snapshot": False}),
    (Command, {"force_telemetry": False}),
    (Query, {"force_telemetry": False}),
    (AggregateState, {"deleted": False}),
    (SagaState, {"ended": False}),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """The part of a failure message that is known before anything fails; ``given`` None: nothing can be given."""

    component: str
    given: Sequence[str] | None
    when: str

    def failure(
        self, problem: str, *, expected: Any = NOT_SHOWN, got: Any = NOT_SHOWN, because: BaseException | None = None
    ) -> AssertionError:
        """Return the error to raise.

        :param problem: what is wrong, in a few words.
        :param expected, got: values, or texts in :class:`Words`.
        :param because: the error of the handler, when that is the reason; it becomes the cause.
        """
        lines = [f"{self.component}: {problem}"]
        if self.given is not None:
            lines += _section("given", self.given or ["nothing"])
        lines += _section("when", [self.when])
        if expected is not NOT_SHOWN:
            lines += _section("expected", _lines(expected))
        if got is not NOT_SHOWN:
            lines += _section("got", _lines(got))
        if expected is not NOT_SHOWN and got is not NOT_SHOWN:
            lines += _difference(expected, got)
        error = AssertionError("\n".join(lines))
        error.__cause__ = because
        return error


class Words(str):
    """Words of a report, which are shown as they are."""

    __slots__ = ()


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, also where a class in them has no ``==`` of its own."""
    if type(one) is not type(other):
        return False
    try:
        return bool(one == other) or msgspec.to_builtins(one) == msgspec.to_builtins(other)
    except (TypeError, ValueError):
        return False


def show(value: Any) -> str:
    """Return a value in one line, without the framework's fields that are at their defaults."""
    if isinstance(value, Words):
        return str(value)
    if isinstance(value, type):
        return value.__qualname__.rpartition("<locals>.")[2]
    if isinstance(value, BaseException):
        return _error(value)
    parts = _parts(value)
    if parts is None:
        return repr(value)
    head, items, tail = parts
    return head + ", ".join(prefix + show(item) for prefix, item in items) + tail


def _error(error: BaseException) -> str:
    data = error.data if isinstance(error, EventoError) else {}
    items = [repr(str(error)), *(f"{name}={value!r}" for name, value in data.items())]
    return f"{type(error).__name__}({', '.join(items)})"


def _parts(value: Any) -> tuple[str, list[tuple[str, Any]], str] | None:
    """Return a value taken apart: what stands before, the items with their prefixes, what stands behind."""
    if isinstance(value, msgspec.Struct):
        return f"{type(value).__name__}(", [(f"{name}=", item) for name, item in _fields(value)], ")"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return f"{type(value).__name__}(", [(f"{name}=", getattr(value, name)) for name in names], ")"
    if type(value) is dict:
        return "{", [(f"{show(key)}: ", item) for key, item in value.items()], "}"
    if type(value) is list:
        return "[", [("", item) for item in value], "]"
    if type(value) is tuple and value:
        return "(", [("", item) for item in value], ",)" if len(value) == 1 else ")"
    return None


def _fields(value: msgspec.Struct) -> list[tuple[str, Any]]:
    silent = {name: default for base, names in _SILENT if isinstance(value, base) for name, default in names.items()}
    present = ((name, getattr(value, name)) for name in value.__struct_fields__)
    return [(name, item) for name, item in present if name not in silent or item != silent[name]]


def _lines(value: Any, prefix: str = "", *, width: int = _WIDTH) -> list[str]:
    """Return a value in as many lines as it needs; ``width`` 0 gives every item a line."""
    text = prefix + show(value)
    parts = None if isinstance(value, Words) else _parts(value)
    if parts is None or not parts[1] or len(text) <= width:
        return text.splitlines() if isinstance(value, Words) else [text]
    head, items, tail = parts
    lines = [prefix + head]
    for name, item in items:
        *inner, last = _lines(item, name, width=width)
        lines += [_INDENT + line for line in inner]
        lines.append(f"{_INDENT}{last},")
    return [*lines, tail.lstrip(",")]


def _difference(expected: Any, got: Any) -> list[str]:
    if type(expected) is not type(got) or isinstance(expected, Words):
        return []
    one, other = _lines(expected, width=0), _lines(got, width=0)
    if len(one) == len(other) == 1 or one == other:
        return []
    changes = [line.rstrip() for line in difflib.ndiff(one, other) if not line.startswith("?")]
    return _section("difference (- expected, + got)", changes)


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"{title}:", *(f"{_INDENT}{line}" for line in lines)]


def show_step(payload: Any, metadata: Mapping[str, str] | None) -> str:
    """Return a given or handled payload in one line, with its metadata."""
    return f"{show(payload)} with metadata {dict(metadata)!r}" if metadata else show(payload)
