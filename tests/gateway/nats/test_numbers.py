"""Numbers that nobody can guess."""

from __future__ import annotations

from evento.gateway.nats.numbers import Numbers


def test_numbers_come_once_have_63_bits_and_differ_from_those_of_others() -> None:
    first, second = Numbers(), Numbers()
    seen = {first.next() for _ in range(2000)} | {second.next() for _ in range(2000)}
    assert len(seen) == 4000
    assert all(0 <= number < 2**63 for number in seen)
    assert max(seen) > 2**62
