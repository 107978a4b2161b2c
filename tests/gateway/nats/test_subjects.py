"""Subjects: any text becomes one token, and no two texts the same."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evento.gateway.nats import Subjects, token, untoken


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_text_is_one_token_and_comes_back(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_%-]+", token(text))
    assert untoken(token(text)) == text


def test_an_empty_token_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        token("")


def test_the_subjects_of_a_cluster() -> None:
    subjects = Subjects("main")
    assert subjects.command("OrderPlaceCommand") == "evento.main.command.OrderPlaceCommand"
    assert subjects.query("a.b") == "evento.main.query.a%2Eb"
    assert subjects.store("append") == "evento.main.store.append"
    assert subjects.registry("view") == "evento.main.registry.view"
    assert subjects.registration("a.b", "register") == "evento.main.registry.a%2Eb.register"
    assert subjects.registrations("register") == "evento.main.registry.*.register"
    assert subjects.head == "evento.main.head"
    assert subjects.telemetry("shop", "1") == "evento.main.telemetry.shop.1"
    assert subjects.instance("shop", "1", "drain") == "evento.main.instance.shop.1.drain"
    assert subjects.inbox("shop", "1") == "evento.main.inbox.shop.1"


def test_a_reply_subject_tells_whose_inbox_it_is() -> None:
    subjects = Subjects("main")
    assert subjects.inbox_owner(subjects.inbox("a shop.*", "1>") + ".17") == ("a shop.*", "1>")
    for other in ("", "evento.main.inbox.a.b", "evento.main.inbox.a.b.c.d", "evento.other.inbox.a.b.1", "_INBOX.a.b.1"):
        assert subjects.inbox_owner(other) is None
    assert subjects.inbox_owner("evento.main.inbox.%FF.b.1") is None


def test_a_registration_tells_whose_it_is() -> None:
    subjects = Subjects("main")
    assert subjects.registering(subjects.registration("a shop.*", "leave")) == "a shop.*"
    for other in ("evento.main.registry.view", "evento.other.registry.a.b", "evento.main.registry.a.b.c", "x"):
        assert subjects.registering(other) is None
    assert subjects.registering("evento.main.registry.%FF.leave") is None
