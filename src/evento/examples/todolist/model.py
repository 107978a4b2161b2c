"""The read model: two tables, and the views that are read from them.

The tables carry the version of the projector that fills them. Raising it makes the projector start again from the
first event and build the new tables beside the old ones.
"""

from collections.abc import Sequence
from datetime import datetime, timezone

from sqlalchemy import Column, DateTime, Enum, ForeignKey, Index, MetaData, RowMapping, String, Table, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.types import TypeDecorator

from evento.examples.todolist.api.todo_list import TodoListListItemView, TodoListStatus, TodoListView, TodoView

__all__ = ["READ_MODEL_VERSION", "create_tables", "tables", "to_list_item_view", "to_view", "todo_lists", "todos"]

READ_MODEL_VERSION = 2


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, kept in UTC: SQLite itself keeps no time zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC."""
        return None if value is None else value.astimezone(timezone.utc).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Say that it is UTC."""
        return None if value is None else value.replace(tzinfo=timezone.utc)


tables = MetaData()

todo_lists = Table(
    f"todo_list_v{READ_MODEL_VERSION}",
    tables,
    Column("identifier", String(100), primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_by", Text),
    Column("updated_at", UtcDateTime),
    Column("status", Enum(TodoListStatus, native_enum=False, length=30), nullable=False),
    Column("registered_at", UtcDateTime),
)
Index(f"{todo_lists.name}_newest", todo_lists.c.created_at.desc(), todo_lists.c.identifier)

todos = Table(
    f"todo_v{READ_MODEL_VERSION}",
    tables,
    Column("list_identifier", ForeignKey(todo_lists.c.identifier), primary_key=True),
    Column("identifier", String(100), primary_key=True),
    Column("content", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("completed_by", Text),
    Column("completed_at", UtcDateTime),
)


async def create_tables(engine: AsyncEngine) -> None:
    """Create the tables that are missing."""
    async with engine.begin() as connection:
        await connection.run_sync(tables.create_all)


def to_list_item_view(row: RowMapping) -> TodoListListItemView:
    """Make the view of one line of a list of lists."""
    return TodoListListItemView(row[todo_lists.c.identifier], row[todo_lists.c.name])


def to_view(rows: Sequence[RowMapping]) -> TodoListView:
    """Make the view of a list from its row joined with those of its todos."""
    row = rows[0]
    return TodoListView(
        identifier=row[todo_lists.c.identifier],
        name=row[todo_lists.c.name],
        todos=[_to_todo_view(row) for row in rows if row[todos.c.identifier] is not None],
        created_by=row[todo_lists.c.created_by],
        updated_by=row[todo_lists.c.updated_by],
        created_at=row[todo_lists.c.created_at],
        updated_at=row[todo_lists.c.updated_at],
        status=row[todo_lists.c.status],
        registered_at=row[todo_lists.c.registered_at],
    )


def _to_todo_view(row: RowMapping) -> TodoView:
    return TodoView(
        identifier=row[todos.c.identifier],
        content=row[todos.c.content],
        completed=row[todos.c.completed_at] is not None,
        created_by=row[todos.c.created_by],
        completed_by=row[todos.c.completed_by],
        created_at=row[todos.c.created_at],
        completed_at=row[todos.c.completed_at],
    )
