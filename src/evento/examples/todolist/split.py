"""The same components in three bundles, which find each other through an Evento Server.

* ``evento run evento.examples.todolist.split:commands``: the aggregates;
* ``uvicorn --factory evento.examples.todolist.split:web``: the read model, the queries and the web;
* ``evento run evento.examples.todolist.split:reactions``: the saga, the observer and the services that they use.

Each may run several times, on machines of their own. ``$EVENTO_SERVER`` says where the servers are, such as
``nats://127.0.0.1:3030``, and ``$TODOLIST_DATABASE`` where the read model and the places of the consumers are: a
SQLAlchemy URL, by default of a SQLite file in the current folder. Nothing in the components knows of any of this.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
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
from evento.examples.todolist.web import create_web

__all__ = ["commands", "reactions", "running_queries", "web"]

LATENCY = SimulatedLatency(erp_per_contributor=0.1, notification=0.05)


def database() -> str:
    """Return the SQLAlchemy URL of the database that the bundles share."""
    return os.environ.get("TODOLIST_DATABASE") or "sqlite+aiosqlite:///todolist-readmodel.db"


def commands() -> EventoBundle:
    """Make the command side."""
    return EventoBundle(
        "ToDoList-Commands",
        version=1,
        components=[SequenceAggregate, TodoListAggregate],
        description="Decides about todo lists of at most five todos",
    )


def reactions() -> EventoBundle:
    """Make the bundle that does what is to follow on events."""
    return EventoBundle(
        "ToDoList-Reactions",
        version=1,
        components=[
            ErpTodoListActivityRegistrationSaga,
            ErpService,
            TodoListNotificationObserver,
            NotificationService,
        ],
        consumer_state_store=database(),
        injector={SimulatedLatency: LATENCY, Notifier: Notifier()},
        description="Registers finished lists in the ERP system, and notifies people",
    )


@asynccontextmanager
async def running_queries(updates: TodoListUpdates) -> AsyncIterator[EventoBundle]:
    """Run the query side, which makes its tables first; changes of lists are handed to ``updates``.

    Of several replicas one fills the read model, and hands out the updates; all answer queries from it.
    """
    engine = create_async_engine(database())
    try:
        await create_tables(engine)
        async with EventoBundle(
            "ToDoList-Queries",
            version=1,
            components=[TodoListProjector, TodoListProjection, TodoListInvoker],
            consumer_state_store=database(),
            injector={AsyncEngine: engine, TodoListUpdates: updates},
            description="Shows todo lists, and takes what users want",
        ) as bundle:
            yield bundle
    finally:
        await engine.dispose()


def web() -> FastAPI:
    """Make the web application; the query side starts and stops with it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.updates = updates = TodoListUpdates()
        async with running_queries(updates) as bundle:
            app.state.todo_lists = bundle.invoker(TodoListInvoker)
            yield

    return create_web(lifespan)
