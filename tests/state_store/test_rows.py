"""What is wrong with a row is told, whatever is in it."""

import pytest

from evento.state_store.rows import row_problems, state_problems

DEEP = b'{"a":' * 50_000


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"a":\xff}', DEEP])
def test_what_cannot_be_read_is_a_problem_and_no_error(text: bytes) -> None:
    assert [problem.split(" is not ")[0] for problem in row_problems(7, "domain", text, text)] == [
        "the payload of event 7",
        "the metadata of event 7",
    ]


def test_a_state_that_cannot_be_read_is_a_problem_and_no_error() -> None:
    assert len(list(state_problems("ORD_1", "f", DEEP))) == 1


def test_a_row_as_it_should_be_has_none() -> None:
    assert list(row_problems(7, "service", b'{"a":1}', b'{"b":"c"}')) == []
