"""Metadata: a read-only mapping of str to str."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evento import Metadata, PayloadError
from evento.messages import EMPTY_METADATA


def test_it_is_a_mapping_that_cannot_be_changed() -> None:
    items = {"user": "ann"}
    metadata = Metadata(items)
    items["user"] = "bob"
    assert metadata["user"] == "ann"
    assert dict(metadata) == {"user": "ann"}
    assert (len(metadata), "user" in metadata, metadata.get("other")) == (1, True, None)
    with pytest.raises(TypeError):
        metadata["user"] = "bob"  # type: ignore[index]


def test_it_compares_by_value() -> None:
    assert Metadata({"a": "1"}) == Metadata({"a": "1"}) == {"a": "1"}
    assert Metadata({"a": "1"}) != Metadata({"a": "2"})
    assert hash(Metadata({"a": "1", "b": "2"})) == hash(Metadata({"b": "2", "a": "1"}))
    assert repr(Metadata({"a": "1"})) == "Metadata({'a': '1'})"


def test_merging_gives_new_metadata() -> None:
    metadata = Metadata({"a": "1", "b": "2"})
    assert metadata.merged({"b": "3", "c": "4"}) == {"a": "1", "b": "3", "c": "4"}
    assert metadata.merged({}) is metadata
    assert metadata == {"a": "1", "b": "2"}


def test_a_copy_may_be_changed() -> None:
    metadata = Metadata({"a": "1"})
    metadata.to_dict()["a"] = "2"
    assert metadata == {"a": "1"}


def test_none_and_nothing_are_empty() -> None:
    assert Metadata.checked(None) is EMPTY_METADATA
    assert Metadata.checked({}) is EMPTY_METADATA
    assert Metadata() == {}
    assert EMPTY_METADATA.to_json() == b"{}"
    assert Metadata.from_json(b"{}") is EMPTY_METADATA


@pytest.mark.parametrize("make", [Metadata, Metadata.checked, EMPTY_METADATA.merged])
@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({"a": 1}, "'a' is int: convert it with str"),
        ({1: "a"}, "1 is str: convert"),
        ({"a": None}, "'a' is NoneType"),
        ({"a": "\0"}, "'a' holds a NUL character"),
        ({"\0": "a"}, "holds a NUL"),
        ({"a": "\ud800"}, "lone surrogate"),
        ([("a", "b")], "must be a mapping of str to str, not list"),
    ],
)
def test_what_is_no_text_is_refused(make: Any, items: Any, message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        make(items)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.text(st.characters(exclude_characters="\0")), st.text(st.characters(exclude_characters="\0")))
)
def test_it_survives_json(items: dict[str, str]) -> None:
    try:
        metadata = Metadata(items)
    except PayloadError:
        return
    assert Metadata.from_json(metadata.to_json()) == metadata


@pytest.mark.parametrize("data", [b"", b"[]", b'{"a": 1}', b'{"a": "\xff"}', b"\xff"])
def test_malformed_json_is_a_payload_error(data: bytes) -> None:
    with pytest.raises(PayloadError, match="metadata is not a JSON object of strings"):
        Metadata.from_json(data)
