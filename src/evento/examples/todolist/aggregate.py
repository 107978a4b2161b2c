"""The rules of a todo list: at most five todos, and what is checked stays."""

from evento import Aggregate, AggregateState, CommandRejected, aggregate_command_handler, event_sourcing_handler
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

__all__ = ["MAX_TODOS", "TodoListAggregate", "TodoListState"]

MAX_TODOS = 5


class TodoListState(AggregateState):
    """What the rules need to know: of each todo whether it is checked."""

    todos: dict[str, bool] = {}


class TodoListAggregate(Aggregate[TodoListState]):
    """One todo list."""

    @aggregate_command_handler(init=True)
    def create(self, command: TodoListCreateCommand) -> TodoListCreatedEvent:
        """Create the list."""
        _require(bool(command.identifier.strip()), "Error: Todo Id is null")
        _require(bool(command.name.strip()), "Error: Content is empty")
        return TodoListCreatedEvent(command.identifier, command.name)

    @event_sourcing_handler
    def on_created(self, event: TodoListCreatedEvent) -> TodoListState:
        """Start without todos."""
        return TodoListState()

    @aggregate_command_handler
    def delete(self, command: TodoListDeleteCommand, state: TodoListState) -> TodoListDeletedEvent:
        """Delete the list, unless one of its todos is checked."""
        _require(not any(state.todos.values()), "Error: List contains a checked todo")
        return TodoListDeletedEvent(command.identifier)

    @event_sourcing_handler
    def on_deleted(self, event: TodoListDeletedEvent, state: TodoListState) -> None:
        """From here on the list takes no command."""
        state.deleted = True

    @aggregate_command_handler
    def add_todo(self, command: TodoListAddTodoCommand, state: TodoListState) -> TodoListTodoAddedEvent:
        """Add a todo, unless the list is full."""
        _require(bool(command.todo_identifier.strip()), "Invalid todo identifier")
        _require(bool(command.content.strip()), "Invalid todo content")
        _require(command.todo_identifier not in state.todos, "Todo already present")
        _require(len(state.todos) < MAX_TODOS, "Todo list is full")
        return TodoListTodoAddedEvent(command.identifier, command.todo_identifier, command.content)

    @event_sourcing_handler
    def on_todo_added(self, event: TodoListTodoAddedEvent, state: TodoListState) -> None:
        """Remember the todo as open."""
        state.todos[event.todo_identifier] = False

    @aggregate_command_handler
    def remove_todo(self, command: TodoListRemoveTodoCommand, state: TodoListState) -> TodoListTodoRemovedEvent:
        """Remove a todo, unless it is checked."""
        _require_open(command.todo_identifier, state)
        return TodoListTodoRemovedEvent(command.identifier, command.todo_identifier)

    @event_sourcing_handler
    def on_todo_removed(self, event: TodoListTodoRemovedEvent, state: TodoListState) -> None:
        """Forget the todo."""
        del state.todos[event.todo_identifier]

    @aggregate_command_handler
    def check_todo(self, command: TodoListCheckTodoCommand, state: TodoListState) -> TodoListTodoCheckedEvent:
        """Check a todo, and tell whether it was the last open one."""
        _require_open(command.todo_identifier, state)
        others = (checked for todo, checked in state.todos.items() if todo != command.todo_identifier)
        return TodoListTodoCheckedEvent(command.identifier, command.todo_identifier, all_checked=all(others))

    @event_sourcing_handler
    def on_todo_checked(self, event: TodoListTodoCheckedEvent, state: TodoListState) -> None:
        """Remember the todo as checked."""
        state.todos[event.todo_identifier] = True


def _require_open(todo_identifier: str, state: TodoListState) -> None:
    _require(todo_identifier in state.todos, "Todo not present")
    _require(not state.todos[todo_identifier], "Todo already checked")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise CommandRejected(message)
