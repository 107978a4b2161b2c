"""What the soak (tests/support/soak.py) takes for flat memory."""

from __future__ import annotations

import random

import pytest
from soak import MIB, flat

EVENTS = range(0, 50_000, 100)


def noisy(seed: int) -> list[float]:
    """Return memory that stays where it is, but for what garbage awaits its collection."""
    chance = random.Random(seed)
    return [60 * MIB + chance.uniform(0, MIB / 4) for _ in EVENTS]


def judged(sizes: list[float]) -> bool:
    return flat([(events, int(size)) for events, size in zip(EVENTS, sizes, strict=True)])


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_flat(seed: int) -> None:
    assert judged(noisy(seed))


@pytest.mark.parametrize("seed", range(5))
def test_a_hundred_bytes_lost_with_each_event_are_not(seed: int) -> None:
    assert not judged([size + 100 * events for events, size in zip(EVENTS, noisy(seed), strict=True)])


def test_caches_may_fill_in_the_first_half() -> None:
    assert judged([size + min(events, 20_000) * 800 for events, size in zip(EVENTS, noisy(0), strict=True)])


@pytest.mark.parametrize("at", [26_000, 37_500, 49_000])
def test_one_step_is_flat(at: int) -> None:
    assert judged([size + (MIB / 2 if events >= at else 0) for events, size in zip(EVENTS, noisy(0), strict=True)])


def test_high_samples_are_flat() -> None:
    assert judged(
        [size + (8 * MIB if events % 1000 == 0 else 0) for events, size in zip(EVENTS, noisy(0), strict=True)]
    )
