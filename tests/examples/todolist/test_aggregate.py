"""The rules of a todo list, without anything around them."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from evento import CommandRejected
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

LIST = "TDLS_1"
aggregate = TodoListAggregate()


@contextmanager
def rejected(message: str) -> Iterator[None]:
    with pytest.raises(CommandRejected) as caught:
        yield
    assert str(caught.value) == message


def state_of(*, checked: tuple[str, ...] = (), unchecked: tuple[str, ...] = ()) -> TodoListState:
    return TodoListState(todos={**dict.fromkeys(checked, True), **dict.fromkeys(unchecked, False)})


def test_create_tells_id_and_name() -> None:
    event = aggregate.create(TodoListCreateCommand(LIST, "Groceries"))

    assert event == TodoListCreatedEvent(LIST, "Groceries")
    assert aggregate.on_created(event) == TodoListState()


@pytest.mark.parametrize("name", ["", " ", "\t\n"])
def test_create_needs_a_name(name: str) -> None:
    with rejected("Error: Content is empty"):
        aggregate.create(TodoListCreateCommand(LIST, name))


def test_create_needs_an_id() -> None:
    with rejected("Error: Todo Id is null"):
        aggregate.create(TodoListCreateCommand(" ", "Groceries"))


def test_a_list_without_checked_todos_can_be_deleted() -> None:
    state = state_of(unchecked=("a",))

    event = aggregate.delete(TodoListDeleteCommand(LIST), state)
    aggregate.on_deleted(event, state)

    assert event == TodoListDeletedEvent(LIST)
    assert state.deleted


def test_a_list_with_a_checked_todo_cannot_be_deleted() -> None:
    with rejected("Error: List contains a checked todo"):
        aggregate.delete(TodoListDeleteCommand(LIST), state_of(checked=("a",), unchecked=("b",)))


def test_a_todo_is_added_unchecked() -> None:
    state = state_of()

    event = aggregate.add_todo(TodoListAddTodoCommand(LIST, "a", "Milk"), state)
    aggregate.on_todo_added(event, state)

    assert event == TodoListTodoAddedEvent(LIST, "a", "Milk")
    assert state.todos == {"a": False}


@pytest.mark.parametrize(
    ("todo", "content", "message"),
    [
        (" ", "Milk", "Invalid todo identifier"),
        ("b", " ", "Invalid todo content"),
        ("a", "Milk", "Todo already present"),
    ],
)
def test_a_todo_that_is_wrong_is_not_added(todo: str, content: str, message: str) -> None:
    with rejected(message):
        aggregate.add_todo(TodoListAddTodoCommand(LIST, todo, content), state_of(unchecked=("a",)))


def test_a_list_takes_five_todos() -> None:
    state = state_of()
    for number in range(MAX_TODOS):
        aggregate.on_todo_added(aggregate.add_todo(TodoListAddTodoCommand(LIST, f"t{number}", "x"), state), state)

    assert len(state.todos) == 5
    with rejected("Todo list is full"):
        aggregate.add_todo(TodoListAddTodoCommand(LIST, "t5", "x"), state)


def test_a_removed_todo_makes_room() -> None:
    state = state_of(unchecked=("a", "b", "c", "d", "e"))

    event = aggregate.remove_todo(TodoListRemoveTodoCommand(LIST, "c"), state)
    aggregate.on_todo_removed(event, state)

    assert event == TodoListTodoRemovedEvent(LIST, "c")
    assert aggregate.add_todo(TodoListAddTodoCommand(LIST, "f", "x"), state)


@pytest.mark.parametrize(("todo", "message"), [("x", "Todo not present"), ("a", "Todo already checked")])
def test_only_a_present_unchecked_todo_can_be_removed_or_checked(todo: str, message: str) -> None:
    state = state_of(checked=("a",), unchecked=("b",))

    with rejected(message):
        aggregate.remove_todo(TodoListRemoveTodoCommand(LIST, todo), state)
    with rejected(message):
        aggregate.check_todo(TodoListCheckTodoCommand(LIST, todo), state)


def test_the_last_check_completes_the_list() -> None:
    state = state_of(unchecked=("a", "b"))

    first = aggregate.check_todo(TodoListCheckTodoCommand(LIST, "b"), state)
    aggregate.on_todo_checked(first, state)
    last = aggregate.check_todo(TodoListCheckTodoCommand(LIST, "a"), state)

    assert first == TodoListTodoCheckedEvent(LIST, "b", all_checked=False)
    assert last == TodoListTodoCheckedEvent(LIST, "a", all_checked=True)
    assert state.todos == {"a": False, "b": True}


def test_the_only_todo_completes_its_list() -> None:
    assert aggregate.check_todo(TodoListCheckTodoCommand(LIST, "a"), state_of(unchecked=("a",))).all_checked
