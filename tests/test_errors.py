"""The error tree, and errors as data."""

from __future__ import annotations

import copy
import pickle
import re
from datetime import datetime, timezone
from typing import Any

import msgspec
import pytest

import evento.errors
from evento.errors import (
    CapabilityError,
    CommandRejected,
    DefinitionError,
    ErrorData,
    EventoError,
    HandlerError,
    LeaseLost,
    NotFound,
    QueryRejected,
    RequestTimeout,
    error_from_data,
    error_to_data,
)


def classes() -> list[type[EventoError]]:
    found = [value for value in vars(evento.errors).values() if isinstance(value, type)]
    return [value for value in found if issubclass(value, EventoError)]


def test_the_drawn_tree_is_the_tree_of_classes() -> None:
    drawn: dict[str, str | None] = {}
    above: list[str] = []
    for line in (evento.errors.__doc__ or "").splitlines():
        match = re.match(r"^    ([│├└─ ]*)([A-Z]\w+)", line)
        if match:
            depth = len(match[1]) // 4
            above[depth:] = [match[2]]
            drawn[match[2]] = above[depth - 1] if depth else None

    parents = {cls.__name__: cls.__base__.__name__ if cls.__base__ else None for cls in classes()}
    assert drawn == {**parents, "EventoError": None}


def test_every_error_is_exported_and_documented() -> None:
    assert {cls.__name__ for cls in classes()} <= set(evento.errors.__all__)
    assert evento.errors.__all__ == sorted(evento.errors.__all__)
    assert all(cls.__doc__ for cls in classes())


def test_only_unknown_outcomes_are_not_definite() -> None:
    assert {cls for cls in classes() if not cls.definite} == {RequestTimeout, LeaseLost}


def test_an_error_has_message_data_and_type() -> None:
    error = CommandRejected("list is full", size=5)
    assert (error.message, error.data, error.type, error.traceback) == (
        "list is full",
        {"size": 5},
        "CommandRejected",
        None,
    )
    assert str(error) == "list is full"
    assert (EventoError().message, EventoError().data) == ("", {})
    assert CommandRejected("m", message="shadowed", self=1).data == {"message": "shadowed", "self": 1}


class ListFull(CommandRejected):
    def __init__(self, size: int) -> None:
        super().__init__(f"list is full: {size}", size=size)


class Careless(CommandRejected):
    def __init__(self, size: int) -> None:
        self.size = size


class Missing(NotFound):
    pass


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (CommandRejected("list is full"), "CommandRejected('list is full')"),
        (CommandRejected("list is full", size=5), "CommandRejected('list is full', size=5)"),
        (ListFull(5), "ListFull('list is full: 5', size=5)"),
        (EventoError(), "EventoError('')"),
    ],
)
def test_its_repr_has_the_data(error: EventoError, shown: str) -> None:
    assert repr(error) == shown


def test_the_repr_of_an_error_from_elsewhere_tells_what_it_was_there() -> None:
    assert repr(travelled(ListFull(5))) == "CommandRejected('list is full: 5', size=5, type='ListFull')"


class Own(EventoError):
    pass


def travelled(error: BaseException, **options: Any) -> EventoError:
    data = error_to_data(error, **options)
    return error_from_data(msgspec.msgpack.decode(msgspec.msgpack.encode(data), type=ErrorData))


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_every_class_arrives_as_itself(cls: type[EventoError]) -> None:
    error = travelled(cls("why", key="value", number=1))
    assert type(error) is cls
    assert (error.message, error.data, error.type) == ("why", {"key": "value", "number": 1}, cls.__name__)
    assert error.definite == cls.definite


@pytest.mark.parametrize(
    ("error", "cls", "type_name", "message"),
    [
        (ListFull(5), CommandRejected, "ListFull", "list is full: 5"),
        (Own("own"), EventoError, "Own", "own"),
        (Missing("gone"), NotFound, "Missing", "gone"),
        (ValueError("bad value"), HandlerError, "ValueError", "bad value"),
        (KeyError("key"), HandlerError, "KeyError", "'key'"),
        (Careless(5), CommandRejected, "Careless", "5"),
    ],
)
def test_classes_of_users_arrive_as_the_nearest_class(
    error: Exception, cls: type[EventoError], type_name: str, message: str
) -> None:
    arrived = travelled(error)
    assert type(arrived) is cls
    assert (arrived.type, arrived.message) == (type_name, message)


def test_an_error_may_travel_on() -> None:
    arrived = travelled(travelled(ListFull(5)))
    assert (type(arrived), arrived.type, arrived.data) == (CommandRejected, "ListFull", {"size": 5})


def test_what_makes_an_outcome_unknown_travels() -> None:
    class Unsure(CommandRejected):
        definite = False

    assert travelled(Unsure("?")).definite is False
    assert CommandRejected.definite is True


def test_the_traceback_travels_only_when_asked_for() -> None:
    try:
        raise ValueError("inner")
    except ValueError as error:
        caught = error
    assert travelled(caught).traceback is None
    text = travelled(caught, with_traceback=True).traceback
    assert text is not None
    assert "ValueError: inner" in text
    assert "test_errors.py" in text
    assert travelled(travelled(caught, with_traceback=True), with_traceback=True).traceback == text


def test_data_that_json_cannot_hold_travels_as_text() -> None:
    thing = object()
    error = travelled(
        CommandRejected("m", thing=thing, moment=datetime(2026, 1, 1, tzinfo=timezone.utc), nan=float("nan"), none=None)
    )
    assert error.data == {"thing": repr(thing), "moment": "2026-01-01T00:00:00Z", "nan": "nan", "none": None}


def test_text_that_is_none_travels() -> None:
    error = travelled(CommandRejected("\ud800\0 ä", **{"k\0": "\udfff", "n": "a"}))
    assert error.message == "\\ud800\\x00 ä"
    assert error.data == {"k\\x00": "'\\udfff'", "n": "a"}
    msgspec.json.encode(error_to_data(ValueError("\ud800")))


def test_a_message_that_cannot_be_read() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise KeyError

    assert travelled(Broken()).message == "its message cannot be read: KeyError"


@pytest.mark.parametrize("code", ["Unheard", "ListFull", "Exception", "os.system", ""])
def test_no_class_is_found_by_a_name_of_the_wire_but_the_trees(code: str) -> None:
    error = error_from_data(ErrorData(code=code, type="Whatever", message="m"))
    assert (type(error), error.type, error.message) == (HandlerError, "Whatever", "m")


def test_classes_of_users_with_a_name_of_the_tree_do_not_take_it() -> None:
    imposter = type("NotFound", (CommandRejected,), {})
    assert type(travelled(imposter("m"))) is CommandRejected
    assert type(error_from_data(ErrorData(code="NotFound", type="NotFound", message="m"))) is NotFound


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_can_be_copied_and_pickled(duplicate: Any) -> None:
    again = duplicate(QueryRejected("m", key=1))
    assert (type(again), again.message, again.data) == (QueryRejected, "m", {"key": 1})


def test_a_capability_error_is_a_definition_error() -> None:
    assert issubclass(CapabilityError, DefinitionError)
