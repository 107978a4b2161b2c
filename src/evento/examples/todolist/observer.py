"""What else is to happen when a todo is checked."""

from evento import CommandGateway, EventMessage, Observer, QueryGateway, event_handler
from evento.examples.todolist.api.notification import NotificationSendCommand
from evento.examples.todolist.api.todo_list import TodoListTodoCheckedEvent, TodoListViewFindByIdentifierQuery

__all__ = ["TodoListNotificationObserver"]


class TodoListNotificationObserver(Observer, version=1):
    """Tells people what they have checked.

    At least once: when the process dies after a notification was sent and before this is on record, it is sent again.
    """

    @event_handler
    async def on_todo_checked(
        self,
        event: TodoListTodoCheckedEvent,
        message: EventMessage[TodoListTodoCheckedEvent],
        queries: QueryGateway,
        commands: CommandGateway,
    ) -> None:
        """Notify of one checked todo, by the names that the read model knows."""
        query = TodoListViewFindByIdentifierQuery(event.identifier)
        # The read model follows the same events on its own: wait until it knows this one.
        view = await queries.query(query, at_least=message.position)
        content = next(todo.content for todo in view.todos if todo.identifier == event.todo_identifier)
        body = (
            f'You have checked the todo "{content}" ({event.todo_identifier}) inside {view.name} ({view.identifier}) '
            f"at {message.timestamp:%Y-%m-%dT%H:%M:%SZ}"
        )
        await commands.send(NotificationSendCommand(body))
