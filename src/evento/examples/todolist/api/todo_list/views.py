"""What queries are answered with. Web clients see these as they are: their JSON keys are in camelCase."""

from datetime import datetime
from typing import Annotated, TypeAlias

from msgspec import Meta

from evento import View
from evento.examples.todolist.api.todo_list.status import TodoListStatus

__all__ = ["TodoListListItemView", "TodoListView", "TodoView"]


Moment: TypeAlias = Annotated[datetime, Meta(tz=True)]
"""A time with its zone, in UTC."""


class TodoView(View, domain="TodoList", rename="camel"):
    """A todo, with who added and who checked it, and when."""

    identifier: str
    content: str
    completed: bool
    created_by: str
    completed_by: str | None
    created_at: Moment
    completed_at: Moment | None


class TodoListView(View, domain="TodoList", rename="camel"):
    """A list with its todos in the order in which they were added; ``updated_by`` is None until a todo changes.

    ``registered_at`` is when the ERP system has registered the list.
    """

    identifier: str
    name: str
    todos: list[TodoView]
    created_by: str
    updated_by: str | None
    created_at: Moment
    updated_at: Moment | None
    status: TodoListStatus
    registered_at: Moment | None


class TodoListListItemView(View, domain="TodoList", rename="camel"):
    """A list as one line in a list of lists."""

    identifier: str
    name: str
