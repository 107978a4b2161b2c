"""A request without an answer: whenever one comes it counts, and nothing is sent twice for nothing."""

from __future__ import annotations

import asyncio

import pytest

from evento.gateway.nats.waiting import NoResponders, Waiting


async def test_an_answer_counts_that_comes_before_the_next_send_has_begun() -> None:
    waiting = Waiting(b"x", 1)
    waiting.is_sent = True
    waiting.send_again()
    waiting.answer(b"first")
    waiting.answer(b"second")
    assert await waiting.future is None
    waiting.renew()
    assert await waiting.future == b"first"


async def test_an_answer_counts_that_comes_with_the_word_that_nobody_serves() -> None:
    waiting = Waiting(b"x", 1)
    waiting.fail(NoResponders("x", 2))
    waiting.answer(b"done")
    with pytest.raises(NoResponders):
        await waiting.future
    assert await waiting.answer_within(60) == b"done"


async def test_a_pause_without_an_answer_ends() -> None:
    waiting = Waiting(b"x", 1)
    assert await waiting.answer_within(0.001) is None


async def test_a_pause_ends_at_the_deadline() -> None:
    waiting = Waiting(b"x", 1)
    asyncio.get_running_loop().call_soon(waiting.expire)
    assert await waiting.answer_within(60) is None
    assert waiting.expired


async def test_what_is_about_to_be_sent_is_not_sent_again() -> None:
    waiting = Waiting(b"x", 1)
    waiting.send_again()
    assert not waiting.future.done()
