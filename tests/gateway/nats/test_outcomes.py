"""Replies that are kept for who may still ask."""

from __future__ import annotations

import asyncio

from evento.gateway.nats import outcomes
from evento.gateway.nats.outcomes import Outcomes


async def test_a_reply_is_handed_out_once() -> None:
    kept = Outcomes()
    later = asyncio.get_running_loop().time() + 60
    kept.keep(b"a", b"first", later)
    kept.keep(b"a", b"second", later)
    assert b"a" in kept
    assert kept.take(b"a") == b"second"
    assert kept.take(b"a") is None
    assert not kept


async def test_what_nobody_waits_for_is_forgotten() -> None:
    kept = Outcomes()
    now = asyncio.get_running_loop().time()
    kept.keep(b"a", b"old", now - 1)
    kept.keep(b"b", b"new", now + 60)
    kept.forget_expired()
    assert (kept.take(b"a"), kept.take(b"b")) == (None, b"new")


async def test_count_and_bytes_are_bounded_and_the_oldest_goes_first() -> None:
    kept = Outcomes()
    later = asyncio.get_running_loop().time() + 60
    for number in range(outcomes.MAX_COUNT + 10):
        kept.keep(b"%d" % number, b"", later)
    assert len(kept) == outcomes.MAX_COUNT
    assert kept.take(b"9") is None
    for number in range(10):
        kept.keep(b"large %d" % number, bytes(outcomes.MAX_BYTES // 4), later)
    assert kept.take(b"large 5") is None
    assert [kept.take(b"large %d" % number) is not None for number in range(6, 10)] == [True] * 4
