"""From a list on which all is done to its registration in the ERP system."""

from evento import CommandGateway, Metadata, Saga, SagaState, saga_event_handler
from evento.examples.todolist.api import ANONYMOUS
from evento.examples.todolist.api.erp import ErpUserActivityRegisterCommand, ErpUserActivityRegisteredEvent
from evento.examples.todolist.api.todo_list import (
    RESOURCE_TYPE,
    TodoListCreatedEvent,
    TodoListDeletedEvent,
    TodoListTodoAddedEvent,
    TodoListTodoCheckedEvent,
    TodoListTodoRemovedEvent,
)

__all__ = ["ErpTodoListActivityRegistrationSaga", "ErpTodoListActivityRegistrationSagaState"]


class ErpTodoListActivityRegistrationSagaState(SagaState):
    """Which list it is about, and how often each user has worked on its todos."""

    todo_identifier: str
    usages: dict[str, int] = {}

    def count(self, metadata: Metadata) -> None:
        """Count one contribution of the user who made it."""
        user = metadata.get("user", ANONYMOUS)
        self.usages[user] = self.usages.get(user, 0) + 1


class ErpTodoListActivityRegistrationSaga(Saga[ErpTodoListActivityRegistrationSagaState], version=1):
    """Follows each list from its creation until it is registered or deleted; lists from before it are left alone.

    The two systems are consistent in the end: the list tells at once that all is done, the ERP system learns of it a
    little later, and once, however often the process dies in between.
    """

    @saga_event_handler(init=True, association_property="identifier")
    def on_created(self, event: TodoListCreatedEvent) -> ErpTodoListActivityRegistrationSagaState:
        """Begin to follow the list."""
        state = ErpTodoListActivityRegistrationSagaState(todo_identifier=event.identifier)
        state.set_association("identifier", event.identifier)
        return state

    @saga_event_handler(association_property="identifier")
    def on_todo_added(
        self, event: TodoListTodoAddedEvent, state: ErpTodoListActivityRegistrationSagaState, metadata: Metadata
    ) -> None:
        """Count who added the todo."""
        state.count(metadata)

    @saga_event_handler(association_property="identifier")
    def on_todo_removed(
        self, event: TodoListTodoRemovedEvent, state: ErpTodoListActivityRegistrationSagaState, metadata: Metadata
    ) -> None:
        """Count who removed the todo."""
        state.count(metadata)

    @saga_event_handler(association_property="identifier")
    async def on_todo_checked(
        self,
        event: TodoListTodoCheckedEvent,
        state: ErpTodoListActivityRegistrationSagaState,
        metadata: Metadata,
        commands: CommandGateway,
    ) -> None:
        """Count who checked the todo; after the last one have the list registered, and wait for it."""
        state.count(metadata)
        if event.all_checked:
            state.set_association("resource_identifier", state.todo_identifier)
            # Awaited, so that a failure repeats the handler; the repeated command registers nothing twice.
            await commands.send(
                ErpUserActivityRegisterCommand(RESOURCE_TYPE, state.todo_identifier, dict(state.usages))
            )

    @saga_event_handler(association_property="identifier")
    def on_deleted(self, event: TodoListDeletedEvent, state: ErpTodoListActivityRegistrationSagaState) -> None:
        """There is nothing left to register."""
        state.end()

    @saga_event_handler(association_property="resource_identifier")
    def on_registered(
        self, event: ErpUserActivityRegisteredEvent, state: ErpTodoListActivityRegistrationSagaState
    ) -> None:
        """All is done, unless another kind of resource has the same identifier."""
        if event.resource_type == RESOURCE_TYPE:
            state.end()
