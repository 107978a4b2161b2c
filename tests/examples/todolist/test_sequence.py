"""Ordered numbers: the rules of a sequence alone, and many who ask for the first number at once."""

import asyncio
from pathlib import Path

from evento import AggregateAlreadyInitialized, AggregateNotInitialized
from evento.examples.todolist.api.sequence import SequenceGeneratedEvent, SequenceNextCommand, SequenceStartCommand
from evento.examples.todolist.api.todo_list import TodoListCreateCommand
from evento.examples.todolist.config import running_bundle
from evento.examples.todolist.invoker import TodoListInvoker
from evento.examples.todolist.sequence import SequenceAggregate, SequenceState
from evento.testing import aggregate_test

nothing = aggregate_test(SequenceAggregate)
begun = nothing.given(SequenceGeneratedEvent("TDLS", 1))


def test_it_begins_with_one() -> None:
    outcome = nothing.when(SequenceStartCommand("TDLS"))

    outcome.expect(SequenceGeneratedEvent("TDLS", 1)).expect_state(SequenceState(value=1))


def test_it_goes_on_with_the_next() -> None:
    begun.given(SequenceGeneratedEvent("TDLS", 2)).when(SequenceNextCommand("TDLS")).expect(
        SequenceGeneratedEvent("TDLS", 3)
    )


def test_it_begins_once_and_first() -> None:
    begun.when(SequenceStartCommand("TDLS")).expect_error(AggregateAlreadyInitialized)
    nothing.when(SequenceNextCommand("TDLS")).expect_error(AggregateNotInitialized)


def test_each_name_is_a_sequence_of_its_own() -> None:
    assert SequenceNextCommand("TDLS").aggregate_id == SequenceStartCommand("TDLS").aggregate_id == "SEQ_TDLS"


async def test_all_who_ask_first_at_once_get_numbers_of_their_own(tmp_path: Path) -> None:
    async with running_bundle(tmp_path) as bundle:
        lists = bundle.invoker(TodoListInvoker)
        written = await asyncio.gather(*(lists.create_todo_list(f"list {n}", "ann") for n in range(30)))

    assert sorted(int(one.identifier[-12:], 16) for one in written) == list(range(1, 31))


async def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    identifiers = []
    for _ in range(3):
        async with running_bundle(tmp_path) as bundle:
            lists = bundle.invoker(TodoListInvoker)
            identifiers += [(await lists.create_todo_list("Groceries", "ann")).identifier for _ in range(6)]

    assert [int(identifier[-12:], 16) for identifier in identifiers] == list(range(1, 19))


async def test_lists_from_before_there_was_an_order_are_still_there(tmp_path: Path) -> None:
    old = "TDLS_ab0be962-684c-44ba-92de-1404977ef048"
    async with running_bundle(tmp_path) as bundle:
        lists = bundle.invoker(TodoListInvoker)
        await bundle.commands.send(TodoListCreateCommand(old, "Groceries"), metadata={"user": "ann"})
        await lists.add_todo(old, "Milk", "bob")

        assert [todo.content for todo in (await lists.find_todo_list_by_identifier(old)).todos] == ["Milk"]
