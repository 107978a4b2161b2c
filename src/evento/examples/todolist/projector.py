"""From events to the read model.

Each handler writes on the connection that is injected: the consumer's checkpoint commits in the same transaction, so
that each event is seen in the tables exactly once, whenever the process dies.
"""

from datetime import datetime

from sqlalchemy import and_, delete, insert, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.dml import UpdateBase

from evento import Metadata, Projector, ProjectorStatus, event_handler
from evento.examples.todolist.api import ANONYMOUS
from evento.examples.todolist.api.erp import ErpUserActivityRegisteredEvent
from evento.examples.todolist.api.todo_list import (
    RESOURCE_TYPE,
    TodoListCreatedEvent,
    TodoListDeletedEvent,
    TodoListStatus,
    TodoListTodoAddedEvent,
    TodoListTodoCheckedEvent,
    TodoListTodoRemovedEvent,
)
from evento.examples.todolist.model import READ_MODEL_VERSION, todo_lists, todos
from evento.examples.todolist.realtime import TodoListUpdates, Update

__all__ = ["TodoListProjector"]


class TodoListProjector(Projector, version=READ_MODEL_VERSION, wait_for_head_reached=True):
    """Keeps the tables of :mod:`~evento.examples.todolist.model`; the user is taken from the event's metadata.

    Who looks at a list is told of each change once it is saved. Nothing is told while history is replayed, so the
    bundle serves nobody before that has ended.
    """

    def __init__(self, updates: TodoListUpdates) -> None:
        self._updates = updates

    @event_handler
    async def on_created(
        self,
        event: TodoListCreatedEvent,
        metadata: Metadata,
        timestamp: datetime,
        connection: AsyncConnection,
        status: ProjectorStatus,
    ) -> None:
        """Add the list."""
        await connection.execute(
            insert(todo_lists).values(
                identifier=event.identifier,
                name=event.content,
                created_by=_user(metadata),
                created_at=timestamp,
                status=TodoListStatus.WIP,
            )
        )
        self._notify(event.identifier, status)

    @event_handler
    async def on_deleted(
        self, event: TodoListDeletedEvent, connection: AsyncConnection, status: ProjectorStatus
    ) -> None:
        """Remove the list and what is in it."""
        await connection.execute(delete(todos).where(todos.c.list_identifier == event.identifier))
        await _change_one(connection, delete(todo_lists).where(_is_list(event.identifier)))
        self._notify(event.identifier, status)

    @event_handler
    async def on_todo_added(
        self,
        event: TodoListTodoAddedEvent,
        metadata: Metadata,
        timestamp: datetime,
        connection: AsyncConnection,
        status: ProjectorStatus,
    ) -> None:
        """Add the todo to its list."""
        await connection.execute(
            insert(todos).values(
                list_identifier=event.identifier,
                identifier=event.todo_identifier,
                content=event.content,
                created_by=_user(metadata),
                created_at=timestamp,
            )
        )
        await _touch(connection, event.identifier, metadata, timestamp)
        self._notify(event.identifier, status)

    @event_handler
    async def on_todo_removed(
        self,
        event: TodoListTodoRemovedEvent,
        metadata: Metadata,
        timestamp: datetime,
        connection: AsyncConnection,
        status: ProjectorStatus,
    ) -> None:
        """Remove the todo from its list."""
        await _change_one(connection, delete(todos).where(_is_todo(event)))
        await _touch(connection, event.identifier, metadata, timestamp)
        self._notify(event.identifier, status)

    @event_handler
    async def on_todo_checked(
        self,
        event: TodoListTodoCheckedEvent,
        metadata: Metadata,
        timestamp: datetime,
        connection: AsyncConnection,
        status: ProjectorStatus,
    ) -> None:
        """Mark the todo as completed."""
        completed = update(todos).where(_is_todo(event))
        await _change_one(connection, completed.values(completed_by=_user(metadata), completed_at=timestamp))
        await _touch(connection, event.identifier, metadata, timestamp)
        if event.all_checked:  # for the first time, or again after todos were added
            begun = update(todo_lists).where(_is_list(event.identifier), todo_lists.c.status == TodoListStatus.WIP)
            await connection.execute(begun.values(status=TodoListStatus.REGISTRATION_PENDING))
        self._notify(event.identifier, status)

    @event_handler
    async def on_registered(
        self,
        event: ErpUserActivityRegisteredEvent,
        timestamp: datetime,
        connection: AsyncConnection,
        status: ProjectorStatus,
    ) -> None:
        """Mark the list as registered; the ERP system may register what is no list of ours."""
        if event.resource_type == RESOURCE_TYPE:
            registered = update(todo_lists).where(_is_list(event.resource_identifier))
            await connection.execute(registered.values(status=TodoListStatus.REGISTERED, registered_at=timestamp))
            self._notify(event.resource_identifier, status)

    def _notify(self, identifier: str, status: ProjectorStatus) -> None:
        """Tell those who look at the list, unless history is replayed."""
        if status.head_reached:
            self._updates.publish(Update(identifier, status.position))


def _user(metadata: Metadata) -> str:
    return metadata.get("user", ANONYMOUS)


def _is_list(identifier: str) -> ColumnElement[bool]:
    return todo_lists.c.identifier == identifier


def _is_todo(event: TodoListTodoRemovedEvent | TodoListTodoCheckedEvent) -> ColumnElement[bool]:
    return and_(todos.c.list_identifier == event.identifier, todos.c.identifier == event.todo_identifier)


async def _touch(connection: AsyncConnection, identifier: str, metadata: Metadata, timestamp: datetime) -> None:
    """Record who changed the list last, and when."""
    touched = update(todo_lists).where(_is_list(identifier))
    await _change_one(connection, touched.values(updated_by=_user(metadata), updated_at=timestamp))


async def _change_one(connection: AsyncConnection, statement: UpdateBase) -> None:
    """Execute a statement that must find its row: if it does not, the read model does not fit the events."""
    result = await connection.execute(statement)
    if result.rowcount != 1:
        raise LookupError(f"{result.rowcount} rows instead of one were changed by: {statement}")
