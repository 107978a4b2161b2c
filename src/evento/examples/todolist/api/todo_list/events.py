"""What has happened to todo lists."""

from evento import DomainEvent

__all__ = [
    "TodoListCreatedEvent",
    "TodoListDeletedEvent",
    "TodoListTodoAddedEvent",
    "TodoListTodoCheckedEvent",
    "TodoListTodoRemovedEvent",
]


class TodoListCreatedEvent(DomainEvent, domain="TodoList"):
    """A list was created; ``content`` is its name."""

    identifier: str
    content: str


class TodoListDeletedEvent(DomainEvent, domain="TodoList"):
    """A list was deleted."""

    identifier: str


class TodoListTodoAddedEvent(DomainEvent, domain="TodoList"):
    """A todo was added to a list."""

    identifier: str
    todo_identifier: str
    content: str


class TodoListTodoRemovedEvent(DomainEvent, domain="TodoList"):
    """A todo was removed from a list."""

    identifier: str
    todo_identifier: str


class TodoListTodoCheckedEvent(DomainEvent, domain="TodoList"):
    """A todo was checked; ``all_checked`` says that it was the last open one of its list."""

    identifier: str
    todo_identifier: str
    all_checked: bool
