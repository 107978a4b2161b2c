"""What the outside may ask for: the door between the web and the components."""

from dataclasses import dataclass
from uuid import UUID, uuid4

from evento import (
    AggregateAlreadyInitialized,
    AggregateNotInitialized,
    DomainCommand,
    DomainEvent,
    Invoker,
    invocation_handler,
    track,
)
from evento.examples.todolist.api.sequence import SequenceNextCommand, SequenceStartCommand
from evento.examples.todolist.api.todo_list import (
    TodoListAddTodoCommand,
    TodoListCheckTodoCommand,
    TodoListCreateCommand,
    TodoListDeleteCommand,
    TodoListListItemView,
    TodoListListItemViewSearchQuery,
    TodoListRemoveTodoCommand,
    TodoListView,
    TodoListViewFindByIdentifierQuery,
)

__all__ = ["PAGE_SIZE", "READ_TIMEOUT", "TodoListInvoker", "Written"]

PAGE_SIZE = 15

SEQUENCE = "TDLS"
"""The sequence whose numbers identify lists."""

READ_TIMEOUT = 5.0
"""How long, in seconds, a read waits for the read model to show what was written before."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a write has done: the identifier of the list or todo, and the position of its event."""

    identifier: str
    position: int


class TodoListInvoker(Invoker):
    """Sends the commands and queries of the application.

    Reads see every write that was made through this object before, and those up to the position ``seen``: whoever
    wrote elsewhere passes the ``position`` of what was written.
    """

    def __init__(self) -> None:
        self._written = 0

    @invocation_handler
    @track
    async def create_todo_list(self, name: str, user: str) -> Written:
        """Create a list under a new identifier, which sorts after those of all lists that were created before."""
        # In the form of an UUID, which identifiers had before they were ordered.
        identifier = f"TDLS_{UUID(int=await self._next_number(user))}"
        return Written(identifier, await self._send(TodoListCreateCommand(identifier, name), user))

    @invocation_handler
    @track
    async def delete_todo_list(self, identifier: str, user: str) -> Written:
        """Delete a list."""
        return Written(identifier, await self._send(TodoListDeleteCommand(identifier), user))

    @invocation_handler
    @track
    async def add_todo(self, identifier: str, content: str, user: str) -> Written:
        """Add a todo to a list, under a new identifier."""
        todo = f"TODO_{uuid4()}"
        return Written(todo, await self._send(TodoListAddTodoCommand(identifier, todo, content), user))

    @invocation_handler
    @track
    async def remove_todo(self, identifier: str, todo_identifier: str, user: str) -> Written:
        """Remove a todo from a list."""
        command = TodoListRemoveTodoCommand(identifier, todo_identifier)
        return Written(todo_identifier, await self._send(command, user))

    @invocation_handler
    @track
    async def check_todo(self, identifier: str, todo_identifier: str, user: str) -> Written:
        """Check a todo of a list."""
        command = TodoListCheckTodoCommand(identifier, todo_identifier)
        return Written(todo_identifier, await self._send(command, user))

    @invocation_handler
    async def find_todo_list_by_identifier(self, identifier: str, seen: int = 0) -> TodoListView:
        """Return a list with its todos."""
        query = TodoListViewFindByIdentifierQuery(identifier)
        return await self.queries.query(query, at_least=max(seen, self._written), timeout=READ_TIMEOUT)

    @invocation_handler
    async def search_todo_list(self, name_like: str = "", page: int = 0, seen: int = 0) -> list[TodoListListItemView]:
        """Return a page of the lists whose name contains ``name_like``, the newest first."""
        query = TodoListListItemViewSearchQuery(name_like, page, PAGE_SIZE)
        return await self.queries.query(query, at_least=max(seen, self._written), timeout=READ_TIMEOUT)

    async def _next_number(self, user: str) -> int:
        """Return the next number of the sequence, which begins with 1.

        The number of a list whose creation fails afterwards is left out.
        """
        metadata = {"user": user}
        try:
            return (await self.commands.send(SequenceNextCommand(SEQUENCE), metadata=metadata)).value
        except AggregateNotInitialized:
            pass
        try:
            return (await self.commands.send(SequenceStartCommand(SEQUENCE), metadata=metadata)).value
        except AggregateAlreadyInitialized:  # others were quicker to begin
            return (await self.commands.send(SequenceNextCommand(SEQUENCE), metadata=metadata)).value

    async def _send(self, command: DomainCommand[DomainEvent], user: str) -> int:
        event = await self.commands.send_message(command, metadata={"user": user})
        self._written = max(self._written, event.position)
        return event.position
