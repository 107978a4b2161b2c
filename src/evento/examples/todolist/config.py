"""The bundle that holds the components together, and where it keeps its data."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from evento import EventoBundle
from evento.examples.todolist.aggregate import TodoListAggregate
from evento.examples.todolist.erp import ErpService
from evento.examples.todolist.invoker import TodoListInvoker
from evento.examples.todolist.latency import SimulatedLatency
from evento.examples.todolist.model import create_tables
from evento.examples.todolist.notification import NotificationService, Notifier
from evento.examples.todolist.observer import TodoListNotificationObserver
from evento.examples.todolist.projection import TodoListProjection
from evento.examples.todolist.projector import TodoListProjector
from evento.examples.todolist.realtime import TodoListUpdates
from evento.examples.todolist.saga import ErpTodoListActivityRegistrationSaga
from evento.examples.todolist.sequence import SequenceAggregate

__all__ = ["COMPONENTS", "EVENT_STORE", "READ_MODEL", "running_bundle"]

EVENT_STORE = "todolist.db"
READ_MODEL = "readmodel.db"
NO_LATENCY = SimulatedLatency()

COMPONENTS = (
    SequenceAggregate,
    TodoListAggregate,
    TodoListProjector,
    TodoListProjection,
    TodoListInvoker,
    ErpService,
    ErpTodoListActivityRegistrationSaga,
    NotificationService,
    TodoListNotificationObserver,
)


@asynccontextmanager
async def running_bundle(
    data: Path,
    *,
    latency: SimulatedLatency = NO_LATENCY,
    notifier: Notifier | None = None,
    updates: TodoListUpdates | None = None,
) -> AsyncIterator[EventoBundle]:
    """Run the bundle on the files in the folder ``data``, which is made where it is missing; stop it at the end.

    The consumer state lives in the database of the read model, so that a projector's checkpoint commits together with
    what the projector wrote. Metadata (the user) flows from commands to events by itself: no tracing agent is needed.

    ``latency`` is how long the simulated outside systems take; ``notifier`` shows the notifications, by default in the
    log. Changes of lists are handed to ``updates``.
    """
    await asyncio.to_thread(data.mkdir, parents=True, exist_ok=True)
    read_model = f"sqlite+aiosqlite:///{data / READ_MODEL}"
    engine = create_async_engine(read_model)
    try:
        await create_tables(engine)
        async with EventoBundle(
            "ToDoList-Bundle",
            version=1,
            components=COMPONENTS,
            server=f"embedded:{data / EVENT_STORE}",
            consumer_state_store=read_model,
            injector={
                AsyncEngine: engine,
                SimulatedLatency: latency,
                Notifier: notifier or Notifier(),
                TodoListUpdates: updates or TodoListUpdates(),
            },
            description="Todo lists of at most five todos",
        ) as bundle:
            yield bundle
    finally:
        await engine.dispose()
