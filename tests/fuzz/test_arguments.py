"""Whatever is written on a command line, its readers answer with a value in range or with an ArgumentTypeError."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from datetime import timezone

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evento.cli.arguments import count, duration, moment, port, position, text
from evento.messages import from_micros

many = settings(max_examples=int(os.environ.get("EVENTO_FUZZ_EXAMPLES", "150")), deadline=None)
ARABIC_THREE = "\N{ARABIC-INDIC DIGIT THREE}"


@many
@given(
    st.from_regex(r"\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?([Zz]|[+-]\d{2}:\d{2})?)?", fullmatch=True)
    | st.datetimes(timezones=st.just(timezone.utc)).map(lambda when: when.isoformat())
    | st.text()
)
@example("0000-01-01")
@example("0001-01-01T00:00:00+23:59")
@example("9999-12-31T23:59:59.999999-23:59")
@example("9999-12-31T24:00:00Z")
@example("2026-12-31T23:59:60Z")
@example("2026-01-01T00:00+24:00")
@example("2026-01-01T00:00:00.123456789Z")
@example(f"202{ARABIC_THREE}-01-01")
def test_times(value: str) -> None:
    try:
        micros = moment(value)
    except argparse.ArgumentTypeError:
        return
    assert -(2**63) <= micros < 2**63


@pytest.mark.parametrize("read", [position, count, port, duration])
@many
@given(
    st.from_regex(r"[0-9]{1,30}[smhdw]?", fullmatch=True) | st.integers().map(str) | st.text() | st.from_regex(r"\d+.?")
)
@example(ARABIC_THREE)
@example(f"{ARABIC_THREE}d")
@example("9" * 5000)
@example("999999w")
@example("1\n")
def test_numbers(read: Callable[[str], int], value: str) -> None:
    try:
        number = read(value)
    except argparse.ArgumentTypeError:
        return
    assert 0 <= number < 2**63
    assert value.isascii()


@many
@given(st.text(st.characters()))
@example("\ud800")
@example("\0")
def test_texts(value: str) -> None:
    try:
        found = text(value)
    except argparse.ArgumentTypeError:
        return
    assert found.encode().decode() == value


def test_times_at_the_edges_of_the_calendar_come_back() -> None:
    assert from_micros(moment("0001-01-01")).year == 1
    assert from_micros(moment("9999-12-31T23:59:59.999999Z")).year == 9999
