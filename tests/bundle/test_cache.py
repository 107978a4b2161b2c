"""The state cache: bounded, expiring, and empty of what is in use."""

from __future__ import annotations

from evento.bundle.cache import CachedState, StateCache

A, B, C = (("Order", aggregate_id) for aggregate_id in "ABC")


def _state(version: int) -> CachedState:
    return CachedState(object(), version=version, boundary_version=version, since_snapshot=0)


def test_an_entry_is_out_of_the_cache_while_it_is_used() -> None:
    cache = StateCache(size=2, expiry=60)
    cache.put(A, _state(1))
    entry = cache.take(A)
    assert entry is not None
    assert entry.version == 1
    assert cache.take(A) is None


def test_the_least_recently_used_entry_gives_way() -> None:
    cache = StateCache(size=2, expiry=60)
    for key in (A, B):
        cache.put(key, _state(1))
    cache.put(A, cache.take(A) or _state(0))
    cache.put(C, _state(1))
    assert cache.take(B) is None
    assert len(cache) == 2


def test_an_expired_entry_is_not_found_and_not_kept() -> None:
    now = [0.0]
    cache = StateCache(size=2, expiry=10, clock=lambda: now[0])
    cache.put(A, _state(1))
    now[0] = 11.0
    assert cache.take(A) is None
    assert len(cache) == 0


def test_size_zero_turns_the_cache_off() -> None:
    cache = StateCache(size=0, expiry=10)
    cache.put(A, _state(1))
    assert cache.take(A) is None


def test_the_bound_holds_for_many_aggregates() -> None:
    cache = StateCache(size=1024, expiry=10)
    for number in range(10_000):
        cache.put(("Order", str(number)), _state(number))
    assert len(cache) == 1024


def test_components_that_share_an_aggregate_share_no_state() -> None:
    cache = StateCache(size=10, expiry=10)
    cache.put(("Order", "A"), _state(1))
    assert cache.take(("Invoice", "A")) is None
    assert cache.take(("Order", "A")) is not None
