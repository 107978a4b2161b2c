"""The bundle that holds the components together, and where it keeps its data."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from evento import EventoBundle
from evento.examples.todolist.aggregate import TodoListAggregate
from evento.examples.todolist.invoker import TodoListInvoker
from evento.examples.todolist.model import create_tables
from evento.examples.todolist.projection import TodoListProjection
from evento.examples.todolist.projector import TodoListProjector

__all__ = ["EVENT_STORE", "READ_MODEL", "running_bundle"]

EVENT_STORE = "todolist.db"
READ_MODEL = "readmodel.db"


@asynccontextmanager
async def running_bundle(data: Path) -> AsyncIterator[EventoBundle]:
    """Run the bundle on the files in the folder ``data``, which is made where it is missing; stop it at the end.

    The consumer state lives in the database of the read model, so that a projector's checkpoint commits together with
    what the projector wrote. Metadata (the user) flows from commands to events by itself: no tracing agent is needed.
    """
    await asyncio.to_thread(data.mkdir, parents=True, exist_ok=True)
    read_model = f"sqlite+aiosqlite:///{data / READ_MODEL}"
    engine = create_async_engine(read_model)
    try:
        await create_tables(engine)
        async with EventoBundle(
            "ToDoList-Bundle",
            version=1,
            components=[TodoListAggregate, TodoListProjector, TodoListProjection, TodoListInvoker],
            server=f"embedded:{data / EVENT_STORE}",
            consumer_state_store=read_model,
            injector={AsyncEngine: engine},
            description="Todo lists of at most five todos",
        ) as bundle:
            yield bundle
    finally:
        await engine.dispose()
