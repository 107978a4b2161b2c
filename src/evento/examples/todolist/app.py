"""The application for any ASGI server: ``uvicorn --factory evento.examples.todolist.app:create_app``."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from evento.examples.todolist.config import running_bundle
from evento.examples.todolist.invoker import TodoListInvoker
from evento.examples.todolist.realtime import TodoListUpdates
from evento.examples.todolist.web import create_web

__all__ = ["create_app"]


def create_app(data: Path | None = None) -> FastAPI:
    """Make the application; its bundle starts and stops with the server.

    ``data`` is the folder of its files; by default ``$TODOLIST_DATA``, else ``todolist-data``.
    """
    folder = data or Path(os.environ.get("TODOLIST_DATA", "todolist-data"))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.updates = updates = TodoListUpdates()
        async with running_bundle(folder, updates=updates) as bundle:
            app.state.todo_lists = bundle.invoker(TodoListInvoker)
            yield

    return create_web(lifespan)
