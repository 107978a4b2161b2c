"""From the read model to the answers of queries."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from evento import NotFound, Projection, query_handler
from evento.examples.todolist.api.todo_list import (
    TodoListListItemView,
    TodoListListItemViewSearchQuery,
    TodoListView,
    TodoListViewFindByIdentifierQuery,
)
from evento.examples.todolist.model import to_list_item_view, to_view, todo_lists, todos
from evento.examples.todolist.projector import TodoListProjector

__all__ = ["TodoListProjection"]


class TodoListProjection(Projection, projectors=(TodoListProjector,)):
    """Reads through an engine of its own, which the bundle's injector provides."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @query_handler
    async def find(self, query: TodoListViewFindByIdentifierQuery) -> TodoListView:
        """Find a list with its todos."""
        found = (
            select(todo_lists, todos)
            .join_from(todo_lists, todos, isouter=True)
            .where(todo_lists.c.identifier == query.identifier)
            .order_by(todos.c.created_at, todos.c.identifier)
        )
        async with self._engine.connect() as connection:
            rows = (await connection.execute(found)).mappings().all()
        if not rows:
            raise NotFound(f"There is no todo list {query.identifier!r}", identifier=query.identifier)
        return to_view(rows)

    @query_handler
    async def search(self, query: TodoListListItemViewSearchQuery) -> list[TodoListListItemView]:
        """Page through the lists, the newest first."""
        matching = select(todo_lists.c.identifier, todo_lists.c.name)
        if query.name_like:
            matching = matching.where(todo_lists.c.name.contains(query.name_like, autoescape=True))
        newest_first = matching.order_by(todo_lists.c.created_at.desc(), todo_lists.c.identifier)
        async with self._engine.connect() as connection:
            rows = await connection.execute(newest_first.limit(query.size).offset(query.page * query.size))
            return [to_list_item_view(row) for row in rows.mappings()]
