"""Why no server answers is told once in a while, for each server."""

from __future__ import annotations

import logging

import pytest

from evento.gateway.nats import complaints
from evento.gateway.nats.complaints import Complaints
from evento.gateway.nats.link import Address

A, B = Address("a", 3030), Address("b", 3030)


def test_each_server_is_told_of_when_it_is_news() -> None:
    said: list[str] = []
    known = Complaints(said.append)
    for _ in range(10):
        known.add(A, ConnectionRefusedError("refused"))
        known.add(B, TimeoutError())
    known.add(B, ConnectionRefusedError("refused"))
    assert said == [
        "waiting for an Evento Server at nats://a:3030: refused",
        "waiting for an Evento Server at nats://b:3030: no answer",
        "waiting for an Evento Server at nats://b:3030: refused",
    ]
    assert str(known) == "nats://a:3030: refused; nats://b:3030: refused"


def test_it_is_told_again_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(complaints, "monotonic", lambda: now)
    said: list[str] = []
    known = Complaints(said.append)
    for _ in range(61):
        known.add(A, OSError("refused"))
        now += 1
    assert len(said) == 3


def test_after_an_answer_all_is_news() -> None:
    said: list[str] = []
    known = Complaints(said.append)
    known.add(A, OSError("refused"))
    known.clear()
    assert str(known) == "no answer"
    known.add(A, OSError("refused"))
    assert len(said) == 2


def test_without_anybody_to_tell_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Complaints().add(A, OSError())
    assert caplog.messages == ["cannot connect to nats://a:3030: OSError"]
