"""The domain TodoList."""

from evento.examples.todolist.api.todo_list.commands import (
    TodoListAddTodoCommand,
    TodoListCheckTodoCommand,
    TodoListCreateCommand,
    TodoListDeleteCommand,
    TodoListRemoveTodoCommand,
)
from evento.examples.todolist.api.todo_list.events import (
    TodoListCreatedEvent,
    TodoListDeletedEvent,
    TodoListTodoAddedEvent,
    TodoListTodoCheckedEvent,
    TodoListTodoRemovedEvent,
)
from evento.examples.todolist.api.todo_list.queries import (
    TodoListListItemViewSearchQuery,
    TodoListViewFindByIdentifierQuery,
)
from evento.examples.todolist.api.todo_list.status import RESOURCE_TYPE, TodoListStatus
from evento.examples.todolist.api.todo_list.views import TodoListListItemView, TodoListView, TodoView

__all__ = [
    "RESOURCE_TYPE",
    "TodoListAddTodoCommand",
    "TodoListCheckTodoCommand",
    "TodoListCreateCommand",
    "TodoListCreatedEvent",
    "TodoListDeleteCommand",
    "TodoListDeletedEvent",
    "TodoListListItemView",
    "TodoListListItemViewSearchQuery",
    "TodoListRemoveTodoCommand",
    "TodoListStatus",
    "TodoListTodoAddedEvent",
    "TodoListTodoCheckedEvent",
    "TodoListTodoRemovedEvent",
    "TodoListView",
    "TodoListViewFindByIdentifierQuery",
    "TodoView",
]
