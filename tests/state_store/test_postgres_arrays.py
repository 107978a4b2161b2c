"""Arrays that travel as text come out as they went in."""

from __future__ import annotations

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evento.state_store.postgres.arrays import numbers, texts
from evento.testing.postgres import PostgresServer

KEPT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
STRANGE = st.sampled_from(
    ["", " ", "NULL", "null", '"', "\\", '\\"', "{", "}", "{}", ",", '","', "\n\t\x1f", "\\\\", "é€😀"]
)
BIGINT = st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    known=st.lists(STRANGE | KEPT, max_size=8),
    some=st.lists(st.none() | STRANGE | KEPT, max_size=8),
    integers=st.lists(st.none() | BIGINT, max_size=8),
)
async def test_what_was_written_is_read(
    postgres: PostgresServer, known: list[str], some: list[str | None], integers: list[int | None]
) -> None:
    connection = await asyncpg.connect(postgres.url)
    try:
        row = await connection.fetchrow(
            "SELECT $1::text::text[], $2::text::text[], $3::text::bigint[]",
            texts(known),
            texts(some),
            numbers(integers),
        )
    finally:
        connection.terminate()
    assert row is not None
    assert tuple(row) == (known, some, integers)


@pytest.mark.parametrize("values", [["a\0b"], ["a", "b\0"], ["\0", None], ["\0"]])
async def test_a_nul_is_refused_and_does_not_make_two_of_one(
    postgres: PostgresServer, values: list[str | None]
) -> None:
    connection = await asyncpg.connect(postgres.url)
    try:
        with pytest.raises(asyncpg.DataError):
            await connection.fetchval("SELECT $1::text::text[]", texts(values))
    finally:
        connection.terminate()
