"""The window: how far a checkpoint may move when events end in any order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evento.consumers.window import Window


def test_the_watermark_stays_before_the_first_unfinished_event() -> None:
    window = Window(10)
    for position in (12, 15, 40):
        assert window.begin(position)
    window.scan(50)
    assert window.watermark == 11
    window.finish(15)
    assert (window.watermark, window.remembered) == (11, 1)
    assert window.unsaved == {15}
    window.finish(12)
    assert window.watermark == 39
    window.finish(40)
    assert (window.watermark, window.unfinished) == (50, 0)


def test_finished_events_are_not_begun_again() -> None:
    window = Window(10, finished=[9, 14, 20])
    assert [position for position in (11, 14, 20, 21) if window.begin(position)] == [11, 21]
    assert window.watermark == 10
    window.finish(11)
    assert window.watermark == 20


def test_what_a_checkpoint_holds_is_forgotten() -> None:
    window = Window(0)
    for position in range(1, 6):
        window.begin(position)
    for position in (1, 3, 4):
        window.finish(position)
    assert window.watermark == 1
    assert window.unsaved == {1, 3, 4}
    window.saved(1, frozenset({1, 3, 4}))
    assert (window.unsaved, window.remembered) == (frozenset(), 2)
    window.finish(2)
    assert window.watermark == 4
    assert window.unsaved == {2}
    window.saved(4, frozenset({2}))
    assert window.remembered == 0


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sets(st.integers(1, 400), max_size=40), st.data())
def test_whatever_ends_first_a_restart_repeats_only_what_no_checkpoint_holds(positions: set[int], data: Any) -> None:
    draw = data.draw
    ordered = sorted(positions)
    window, checkpoint, stored = Window(0), 0, set[int]()
    begun: list[int] = []
    done: set[int] = set()
    saved: set[int] = set()
    for position in ordered:
        window.begin(position)
        begun.append(position)
        for one in draw(st.lists(st.sampled_from(begun), max_size=3, unique=True)):
            if one not in done:
                window.finish(one)
                done.add(one)
        if draw(st.booleans()):
            unsaved, checkpoint = window.unsaved, window.watermark
            stored = {one for one in stored | set(unsaved) if one > checkpoint}
            window.saved(checkpoint, unsaved)
            saved = set(done)
    again = Window(checkpoint, stored)
    assert {one for one in ordered if one > checkpoint and again.begin(one)} == positions - saved


@pytest.mark.parametrize("position", [5, 10])
def test_an_empty_window_is_at_what_was_scanned(position: int) -> None:
    window = Window(5)
    window.scan(position)
    window.scan(3)
    assert window.watermark == position


def test_finished_events_are_uncommitted_until_a_checkpoint_holds_them() -> None:
    window = Window(0)
    for position in (1, 2, 3):
        window.begin(position)
    window.finish(1)
    window.finish(3)
    assert window.uncommitted == 2
    window.saved(window.watermark, frozenset({3}))
    assert window.uncommitted == 0
