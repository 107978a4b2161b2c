"""What becomes of a list on which all is done, without anything around the saga."""

from evento import TransientError
from evento.examples.todolist.api.erp import ErpUserActivityRegisterCommand, ErpUserActivityRegisteredEvent
from evento.examples.todolist.api.todo_list import (
    TodoListCreatedEvent,
    TodoListDeletedEvent,
    TodoListTodoAddedEvent,
    TodoListTodoCheckedEvent,
    TodoListTodoRemovedEvent,
)
from evento.examples.todolist.saga import (
    ErpTodoListActivityRegistrationSaga,
    ErpTodoListActivityRegistrationSagaState,
)
from evento.messages import DomainEvent, EventMessage
from evento.testing import event_message, saga_test

LIST = "TDLS_1"
ADDED = TodoListTodoAddedEvent(LIST, "TODO_1", "Milk")
LAST_CHECKED = TodoListTodoCheckedEvent(LIST, "TODO_1", all_checked=True)
REGISTERED = ErpUserActivityRegisteredEvent("TodoList", LIST, {"ann": 1, "bob": 1})

nothing = saga_test(ErpTodoListActivityRegistrationSaga)
created = nothing.given(TodoListCreatedEvent(LIST, "Groceries"))


def by(user: str, event: DomainEvent) -> EventMessage[DomainEvent]:
    """Return an event that a user has caused."""
    return event_message(event, metadata={"user": user})


def state(usages: dict[str, int], **associations: str) -> ErpTodoListActivityRegistrationSagaState:
    return ErpTodoListActivityRegistrationSagaState(
        todo_identifier=LIST, usages=usages, associations={"identifier": LIST, **associations}
    )


def test_it_begins_with_the_list() -> None:
    nothing.when(by("ann", TodoListCreatedEvent(LIST, "Groceries"))).expect_commands().expect_state(state({}))


def test_a_list_from_before_it_is_left_alone() -> None:
    nothing.when(ADDED).expect_no_saga()
    nothing.when(LAST_CHECKED).expect_commands().expect_no_saga()


def test_it_counts_what_each_user_does_with_todos() -> None:
    before = created.given(
        by("ann", ADDED),
        by("ann", TodoListTodoAddedEvent(LIST, "TODO_2", "Bread")),
        by("bob", TodoListTodoRemovedEvent(LIST, "TODO_2")),
    )

    outcome = before.when(by("bob", TodoListTodoCheckedEvent(LIST, "TODO_1", all_checked=False)))

    outcome.expect_commands().expect_state(state({"ann": 2, "bob": 2}))


def test_nobody_is_somebody_too() -> None:
    created.when(ADDED).expect_state(state({"anonymous": 1}))


def test_the_last_check_registers_the_contributions() -> None:
    outcome = created.given(by("ann", ADDED)).when(by("bob", LAST_CHECKED))

    outcome.expect_commands(ErpUserActivityRegisterCommand("TodoList", LIST, {"ann": 1, "bob": 1}))
    outcome.expect_state(state({"ann": 1, "bob": 1}, resource_identifier=LIST))


def test_an_erp_system_that_fails_fails_the_handler_so_that_it_is_tried_again() -> None:
    answers = {ErpUserActivityRegisterCommand: TransientError("the ERP system is down")}
    before = saga_test(ErpTodoListActivityRegistrationSaga, answers=answers).given(
        TodoListCreatedEvent(LIST, "Groceries"), by("ann", ADDED)
    )

    before.when(LAST_CHECKED).expect_error(TransientError)


def test_it_ends_with_the_registration() -> None:
    created.given(ADDED, LAST_CHECKED).when(REGISTERED).expect_commands().expect_ended()


def test_it_ends_with_the_list() -> None:
    created.given(ADDED).when(TodoListDeletedEvent(LIST)).expect_commands().expect_ended()


def test_the_registration_of_something_else_does_not_end_it() -> None:
    other = ErpUserActivityRegisteredEvent("Invoice", LIST, {"ann": 1})

    created.given(ADDED, LAST_CHECKED).when(other).expect_state(state({"anonymous": 2}, resource_identifier=LIST))
