"""Message ids."""

from __future__ import annotations

from uuid import UUID, uuid5

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evento.messages import derived_id, new_id


def test_new_ids_are_random_uuids() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert {UUID(one).version for one in ids} == {7}
    assert {UUID(one).variant for one in ids} == {"specified in RFC 4122"}
    assert all(str(UUID(one)) == one for one in ids)


def test_derived_ids_are_always_the_same() -> None:
    """Stored ids depend on it: this value must never change."""
    assert derived_id("m", "Saga.on", "PlaceCommand", "O_1", "1") == "cbcfbb58-0c23-5499-b7e7-80bdbfeeee9d"
    assert UUID(derived_id("m")).version == 5


def test_a_derived_id_is_the_uuid5_of_its_parts() -> None:
    namespace = UUID("6b0d4d83-6d0c-5c6a-8f2e-0d5f6f0c4c6e")
    assert derived_id("ä", "bc") == str(uuid5(namespace, "1:ä2:bc"))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text(), min_size=1, max_size=4), st.lists(st.text(), min_size=1, max_size=4))
def test_other_parts_give_other_ids(one: list[str], other: list[str]) -> None:
    try:
        assert (derived_id(*one) == derived_id(*other)) == (one == other)
    except UnicodeEncodeError:
        assert any("\ud800" <= character <= "\udfff" for part in (*one, *other) for character in part)


def test_the_borders_of_parts_count() -> None:
    assert derived_id("a", "bc") != derived_id("ab", "c")
    assert derived_id("a", "") != derived_id("a")
    assert derived_id("1:a") != derived_id("a")
