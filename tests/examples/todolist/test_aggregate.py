"""The rules of a todo list, without anything around them."""

import pytest

from evento import AggregateDeleted, CommandRejected
from evento.examples.todolist.aggregate import MAX_TODOS, TodoListAggregate, TodoListState
from evento.examples.todolist.api.todo_list import (
    TodoListAddTodoCommand,
    TodoListCheckTodoCommand,
    TodoListCreateCommand,
    TodoListCreatedEvent,
    TodoListDeleteCommand,
    TodoListDeletedEvent,
    TodoListRemoveTodoCommand,
    TodoListTodoAddedEvent,
    TodoListTodoCheckedEvent,
    TodoListTodoRemovedEvent,
)
from evento.testing import AggregateTest, aggregate_test

LIST = "TDLS_1"
nothing = aggregate_test(TodoListAggregate)
empty = nothing.given(TodoListCreatedEvent(LIST, "Groceries"))


def given(*, checked: tuple[str, ...] = (), unchecked: tuple[str, ...] = ()) -> AggregateTest[TodoListState]:
    """Return a list with these todos."""
    added = [TodoListTodoAddedEvent(LIST, todo, "x") for todo in (*checked, *unchecked)]
    return empty.given(*added, *(TodoListTodoCheckedEvent(LIST, todo, all_checked=False) for todo in checked))


def exactly(message: str) -> str:
    """Return the pattern of one whole message."""
    return f"^{message}$"


def test_create_tells_id_and_name() -> None:
    outcome = nothing.when(TodoListCreateCommand(LIST, "Groceries"))

    outcome.expect(TodoListCreatedEvent(LIST, "Groceries")).expect_state(TodoListState())


@pytest.mark.parametrize("name", ["", " ", "\t\n"])
def test_create_needs_a_name(name: str) -> None:
    outcome = nothing.when(TodoListCreateCommand(LIST, name))

    outcome.expect_error(CommandRejected, match=exactly("Error: Content is empty"))


def test_create_needs_an_id() -> None:
    outcome = nothing.when(TodoListCreateCommand(" ", "Groceries"))

    outcome.expect_error(CommandRejected, match=exactly("Error: Todo Id is null"))


def test_a_list_without_checked_todos_can_be_deleted() -> None:
    outcome = given(unchecked=("a",)).when(TodoListDeleteCommand(LIST))

    outcome.expect(TodoListDeletedEvent(LIST)).expect_deleted()


def test_a_deleted_list_takes_no_command() -> None:
    deleted = empty.given(TodoListDeletedEvent(LIST))

    deleted.when(TodoListAddTodoCommand(LIST, "a", "Milk")).expect_error(AggregateDeleted)


def test_a_list_with_a_checked_todo_cannot_be_deleted() -> None:
    outcome = given(checked=("a",), unchecked=("b",)).when(TodoListDeleteCommand(LIST))

    outcome.expect_error(CommandRejected, match=exactly("Error: List contains a checked todo"))


def test_a_todo_is_added_unchecked() -> None:
    outcome = empty.when(TodoListAddTodoCommand(LIST, "a", "Milk"))

    outcome.expect(TodoListTodoAddedEvent(LIST, "a", "Milk")).expect_state(TodoListState(todos={"a": False}))


@pytest.mark.parametrize(
    ("todo", "content", "message"),
    [
        (" ", "Milk", "Invalid todo identifier"),
        ("b", " ", "Invalid todo content"),
        ("a", "Milk", "Todo already present"),
    ],
)
def test_a_todo_that_is_wrong_is_not_added(todo: str, content: str, message: str) -> None:
    outcome = given(unchecked=("a",)).when(TodoListAddTodoCommand(LIST, todo, content))

    outcome.expect_error(CommandRejected, match=exactly(message))


def test_a_list_takes_five_todos() -> None:
    assert MAX_TODOS == 5
    full = empty.given_commands(*(TodoListAddTodoCommand(LIST, f"t{number}", "x") for number in range(5)))
    outcome = full.when(TodoListAddTodoCommand(LIST, "t5", "x"))

    outcome.expect_error(CommandRejected, match=exactly("Todo list is full"))


def test_a_removed_todo_makes_room() -> None:
    full = given(unchecked=("a", "b", "c", "d", "e"))

    full.when(TodoListRemoveTodoCommand(LIST, "c")).expect(TodoListTodoRemovedEvent(LIST, "c"))
    full.given(TodoListTodoRemovedEvent(LIST, "c")).when(TodoListAddTodoCommand(LIST, "f", "x")).expect(
        TodoListTodoAddedEvent(LIST, "f", "x")
    )


@pytest.mark.parametrize(("todo", "message"), [("x", "Todo not present"), ("a", "Todo already checked")])
def test_only_a_present_unchecked_todo_can_be_removed_or_checked(todo: str, message: str) -> None:
    todos = given(checked=("a",), unchecked=("b",))

    todos.when(TodoListRemoveTodoCommand(LIST, todo)).expect_error(CommandRejected, match=exactly(message))
    todos.when(TodoListCheckTodoCommand(LIST, todo)).expect_error(CommandRejected, match=exactly(message))


def test_the_last_check_completes_the_list() -> None:
    todos = given(unchecked=("a", "b"))
    first = TodoListTodoCheckedEvent(LIST, "b", all_checked=False)

    todos.when(TodoListCheckTodoCommand(LIST, "b")).expect(first).expect_state(
        TodoListState(todos={"a": False, "b": True})
    )
    todos.given(first).when(TodoListCheckTodoCommand(LIST, "a")).expect(
        TodoListTodoCheckedEvent(LIST, "a", all_checked=True)
    )


def test_the_only_todo_completes_its_list() -> None:
    outcome = given(unchecked=("a",)).when(TodoListCheckTodoCommand(LIST, "a"))

    outcome.expect(TodoListTodoCheckedEvent(LIST, "a", all_checked=True))
