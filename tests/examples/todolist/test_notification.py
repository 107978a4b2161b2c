"""Notifications of checked todos: the observer and the service alone, and both in the application."""

import logging
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from evento import NotFound
from evento.examples.todolist.api.notification import NotificationSendCommand
from evento.examples.todolist.api.todo_list import (
    TodoListStatus,
    TodoListTodoCheckedEvent,
    TodoListView,
    TodoListViewFindByIdentifierQuery,
    TodoView,
)
from evento.examples.todolist.config import running_bundle
from evento.examples.todolist.invoker import TodoListInvoker
from evento.examples.todolist.latency import SimulatedLatency
from evento.examples.todolist.notification import NotificationService, Notifier
from evento.examples.todolist.observer import TodoListNotificationObserver
from evento.testing import event_message, observer_test, service_test

LIST = "TDLS_1"
NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
CHECKED = TodoListTodoCheckedEvent(LIST, "TODO_2", all_checked=False)
VIEW = TodoListView(
    identifier=LIST,
    name="Groceries",
    todos=[
        TodoView("TODO_1", "Milk", False, "ann", None, NOON, None),
        TodoView("TODO_2", "Bread", True, "ann", "bob", NOON, NOON),
    ],
    created_by="ann",
    updated_by="bob",
    created_at=NOON,
    updated_at=NOON,
    status=TodoListStatus.WIP,
    registered_at=None,
)


class Shown(Notifier):
    """Keeps the notifications."""

    def __init__(self) -> None:
        self.bodies: list[str] = []

    def show(self, body: str) -> None:
        self.bodies.append(body)


def test_a_checked_todo_is_told_by_its_name_and_time() -> None:
    event = event_message(CHECKED, timestamp=NOON.astimezone(timezone(timedelta(hours=5))))
    observer = observer_test(TodoListNotificationObserver, answers={TodoListViewFindByIdentifierQuery: VIEW})

    observer.when(event).expect_commands(
        NotificationSendCommand(
            'You have checked the todo "Bread" (TODO_2) inside Groceries (TDLS_1) at 2026-03-01T12:00:00Z'
        )
    )


def test_without_the_view_nothing_is_told() -> None:
    answers = {TodoListViewFindByIdentifierQuery: NotFound("There is no todo list")}

    observer_test(TodoListNotificationObserver, answers=answers).when(CHECKED).expect_error(NotFound).expect_commands()


def test_the_service_shows_what_it_is_given_and_leaves_no_event() -> None:
    shown = Shown()
    injector = {Notifier: shown, SimulatedLatency: SimulatedLatency()}

    service_test(NotificationService, injector=injector).when(NotificationSendCommand("Hello")).expect(None)

    assert shown.bodies == ["Hello"]


def test_by_default_notifications_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Notifier().show("Hello")

    assert caplog.messages == ["Notification: Hello"]


async def test_each_check_is_told_once_however_far_behind_the_read_model_is(tmp_path: Path) -> None:
    shown = Shown()
    async with running_bundle(tmp_path, notifier=shown) as bundle:
        lists = bundle.invoker(TodoListInvoker)
        checked = []
        for name in ("Groceries", "Holiday", "Garden"):
            identifier = (await lists.create_todo_list(name, "ann")).identifier
            todos = [(await lists.add_todo(identifier, f"{name} {n}", "ann")).identifier for n in range(3)]
            for number, todo in enumerate(todos):
                await lists.check_todo(identifier, todo, "bob")
                checked.append(f'You have checked the todo "{name} {number}" ({todo}) inside {name} ({identifier}) at ')
        await bundle.consumers_caught_up()

    assert sorted(body[: body.rindex(" at ") + 4] for body in shown.bodies) == sorted(checked)
