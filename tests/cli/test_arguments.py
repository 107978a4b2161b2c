"""What options accept, and what they call wrong use."""

from __future__ import annotations

import argparse

import pytest

from evento.cli.arguments import after, count, duration, moment, port, position, seconds, text

DAY = 86_400_000_000


@pytest.mark.parametrize(
    ("written", "micros"),
    [
        ("1970-01-01", 0),
        ("1970-01-02", DAY),
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:01z", 1_000_000),
        ("1970-01-01 00:01Z", 60_000_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T23:00:00.000001-01:00", 1),
        ("2026-01-31T08:30:00.123456Z", 1_769_848_200_123_456),
    ],
)
def test_times_are_read_as_microseconds_since_1970(written: str, micros: int) -> None:
    assert moment(written) == micros


@pytest.mark.parametrize(
    "written",
    [
        "",
        "yesterday",
        "2026",
        "2026-13-01",
        "2026-02-30",
        "20260131",
        "2026-W01-1",
        "2026-01-31T08:30:00",
        "2026-01-31T25:00:00Z",
        "2026-01-31Z",
    ],
)
def test_what_is_not_a_time_is_refused_with_an_example(written: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        moment(written)


def test_a_time_without_a_zone_is_refused_as_it_could_mean_two_things() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="no zone: add Z"):
        moment("2026-01-31T08:30:00")


@pytest.mark.parametrize(
    ("written", "seconds"), [("0s", 0), ("90s", 90), ("5m", 300), ("2h", 7200), ("365d", 31_536_000), ("1w", 604_800)]
)
def test_durations(written: str, seconds: int) -> None:
    assert duration(written) == seconds * 1_000_000


@pytest.mark.parametrize("written", ["", "d", "365", "-1d", "1.5d", "1y", "٣d", "9999999d"])
def test_what_is_not_a_duration_is_refused(written: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not a duration"):
        duration(written)


def test_numbers() -> None:
    assert (position("1"), position(str(2**63 - 1))) == (1, 2**63 - 1)
    assert (after("0"), after(str(2**63 - 1))) == (0, 2**63 - 1)
    assert count("1") == 1


@pytest.mark.parametrize("written", ["-1", "1_000", " 1", "1.0", "٣", "x", "", str(2**63)])
def test_what_is_not_a_number_is_refused(written: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        position(written)
    with pytest.raises(argparse.ArgumentTypeError):
        after(written)
    with pytest.raises(argparse.ArgumentTypeError):
        count(written)


def test_counts_and_the_positions_of_events_start_at_one() -> None:
    for kind in (count, position):
        with pytest.raises(argparse.ArgumentTypeError, match=r"whole number from 1$"):
            kind("0")


def test_text_that_no_store_can_hold_is_refused() -> None:
    assert text("ORD_ä") == "ORD_ä"
    for value in ("a\0b", "\udc80"):
        with pytest.raises(argparse.ArgumentTypeError):
            text(value)


def test_ports() -> None:
    assert (port("0"), port("8080"), port("65535")) == (0, 8080, 65535)
    for value in ("65536", "-1", "http"):
        with pytest.raises(argparse.ArgumentTypeError, match="not a port"):
            port(value)


@pytest.mark.parametrize(("written", "read"), [("30", 30.0), ("0.5", 0.5), ("007", 7.0)])
def test_seconds(written: str, read: float) -> None:
    assert seconds(written) == read


@pytest.mark.parametrize("written", ["", "0", "0.0", "-1", "1e3", "inf", "nan", "1_0", " 1", "5s", "1."])
def test_what_is_no_number_of_seconds_is_refused(written: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="seconds"):
        seconds(written)
