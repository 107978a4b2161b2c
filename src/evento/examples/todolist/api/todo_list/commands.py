"""What can be asked of a todo list; the aggregate is the list, its id the list's identifier."""

from evento import AggregateId, DomainCommand
from evento.examples.todolist.api.todo_list.events import (
    TodoListCreatedEvent,
    TodoListDeletedEvent,
    TodoListTodoAddedEvent,
    TodoListTodoCheckedEvent,
    TodoListTodoRemovedEvent,
)

__all__ = [
    "TodoListAddTodoCommand",
    "TodoListCheckTodoCommand",
    "TodoListCreateCommand",
    "TodoListDeleteCommand",
    "TodoListRemoveTodoCommand",
]


class TodoListCreateCommand(DomainCommand[TodoListCreatedEvent], domain="TodoList"):
    """Create a list."""

    identifier: AggregateId
    name: str


class TodoListDeleteCommand(DomainCommand[TodoListDeletedEvent], domain="TodoList"):
    """Delete a list that has no checked todo."""

    identifier: AggregateId


class TodoListAddTodoCommand(DomainCommand[TodoListTodoAddedEvent], domain="TodoList"):
    """Add a todo to a list that is not full."""

    identifier: AggregateId
    todo_identifier: str
    content: str


class TodoListRemoveTodoCommand(DomainCommand[TodoListTodoRemovedEvent], domain="TodoList"):
    """Remove a todo that is not checked."""

    identifier: AggregateId
    todo_identifier: str


class TodoListCheckTodoCommand(DomainCommand[TodoListTodoCheckedEvent], domain="TodoList"):
    """Check a todo, once and for all."""

    identifier: AggregateId
    todo_identifier: str
