"""The cluster's time: learnt from answers, whatever this host's clock says."""

from __future__ import annotations

import pytest

from evento.gateway.nats import ClusterClock


class Monotonic:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_nothing_is_known_at_first() -> None:
    clock = ClusterClock()
    assert not clock.is_known
    assert clock.now() == 0
    assert clock.elapsed_since(5.0) == 0


def test_an_answer_tells_the_time_up_to_half_its_round_trip() -> None:
    own = Monotonic()
    clock = ClusterClock(own)
    clock.correct(5000.0, sent=100.0, received=100.2)
    own.time = 101.1
    assert clock.now() == pytest.approx(5001.0)
    assert clock.uncertainty == pytest.approx(0.1)
    assert clock.elapsed_since(5000.0) == pytest.approx(0.9)
    assert clock.elapsed_since(0) == 0
    assert clock.elapsed_since(6000.0) == 0


def test_the_shortest_round_trip_counts() -> None:
    clock = ClusterClock(Monotonic())
    clock.correct(5000.0, sent=100.0, received=100.002)
    clock.correct(5003.0, sent=100.0, received=106.2)  # the process was stopped meanwhile
    assert clock.uncertainty == pytest.approx(0.001)
    assert clock.now() == pytest.approx(4999.999)


def test_a_server_whose_clock_was_set_is_believed() -> None:
    clock = ClusterClock(Monotonic())
    clock.correct(5000.0, sent=100.0, received=100.0)
    clock.correct(9000.0, sent=100.0, received=100.1)
    assert clock.now() == pytest.approx(8999.95)
