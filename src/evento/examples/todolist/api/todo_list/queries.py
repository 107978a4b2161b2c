"""What can be asked about todo lists."""

from evento import Query
from evento.examples.todolist.api.todo_list.views import TodoListListItemView, TodoListView

__all__ = ["TodoListListItemViewSearchQuery", "TodoListViewFindByIdentifierQuery"]


class TodoListListItemViewSearchQuery(Query[list[TodoListListItemView]], domain="TodoList"):
    """Page through the lists whose name contains ``name_like``, the newest first; ``page`` counts from 0."""

    name_like: str
    page: int
    size: int


class TodoListViewFindByIdentifierQuery(Query[TodoListView], domain="TodoList"):
    """Find a list; :class:`~evento.NotFound` when there is none."""

    identifier: str
