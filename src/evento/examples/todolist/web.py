"""The REST endpoints.

* The user is the raw ``Authorization`` header, unchecked: this example shows where identity goes, not how to prove
  it. Without the header the user is ``anonymous``.
* Writes answer with the header ``X-Evento-Position``: where in the stream of events the change is. Reads see all that
  was written through this process, and, with that header on the request, what was written through any other.
* ``/sse/todo-lists`` and ``/sse/todo-list/{identifier}`` are streams of server-sent events: a ``message`` for each
  change, with the list's identifier as data and the position as id. Ask again with it in the header above.
"""

from http import HTTPStatus
from typing import Annotated, Any, cast

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response, Security
from fastapi.openapi.utils import get_openapi
from fastapi.security import APIKeyHeader
from pydantic import AfterValidator, BaseModel
from starlette.types import Lifespan

from evento.examples.todolist.api import ANONYMOUS
from evento.examples.todolist.api.todo_list import TodoListListItemView, TodoListView
from evento.examples.todolist.errors import Problem, install_error_handlers, json_response
from evento.examples.todolist.invoker import TodoListInvoker, Written
from evento.examples.todolist.realtime import TodoListUpdates
from evento.examples.todolist.sse import EventStream

__all__ = ["POSITION_HEADER", "create_web"]

POSITION_HEADER = "X-Evento-Position"
MAX_INTEGER = 2**63 - 1
MAX_PAGE = 1_000_000


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


NotBlank = Annotated[str, AfterValidator(_not_blank)]


class TodoListCreateRequest(BaseModel):
    """What a new list is made of."""

    name: NotBlank


class TodoCreateRequest(BaseModel):
    """What a new todo is made of."""

    content: NotBlank


class CreatedResponse(msgspec.Struct):
    """The identifier of what was created."""

    identifier: str


async def _todo_lists(request: Request) -> TodoListInvoker:
    return cast(TodoListInvoker, request.app.state.todo_lists)


async def _updates(request: Request) -> TodoListUpdates:
    return cast(TodoListUpdates, request.app.state.updates)


# A security scheme rather than a header parameter, because OpenAPI ignores parameters of this name.
_authorization = APIKeyHeader(
    name="Authorization", scheme_name="User", description="The user, any text; default: anonymous", auto_error=False
)


async def _user(authorization: Annotated[str | None, Security(_authorization)]) -> str:
    return authorization or ANONYMOUS


TodoLists = Annotated[TodoListInvoker, Depends(_todo_lists)]
Updates = Annotated[TodoListUpdates, Depends(_updates)]
User = Annotated[str, Depends(_user)]
Seen = Annotated[
    int,
    Header(alias=POSITION_HEADER, ge=0, le=MAX_INTEGER, description="Show at least the changes up to this position"),
]
NameLike = Annotated[str, Query(alias="nameLike", max_length=1000, description="Part of the name")]
Page = Annotated[int, Query(ge=0, le=MAX_PAGE, description="Counted from 0, 15 lists each")]


def _answers(view: Any) -> dict[str, Any]:
    """Describe a JSON answer whose schema msgspec knows."""
    (schema,), _ = msgspec.json.schema_components([view], ref_template="#/components/schemas/{name}")
    return {"content": {"application/json": {"schema": schema}}}


_POSITION = {"headers": {POSITION_HEADER: {"description": "Where the change is", "schema": {"type": "integer"}}}}
_CREATED: dict[int | str, dict[str, Any]] = {201: {**_answers(CreatedResponse), **_POSITION}}
_DONE: dict[int | str, dict[str, Any]] = {204: _POSITION}
_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"description": "No such list", **_answers(Problem)}}
_BROKEN_RULE: dict[int | str, dict[str, Any]] = {409: {"description": "A rule is broken", **_answers(Problem)}}
_ALWAYS: dict[int | str, dict[str, Any]] = {
    422: {"description": "Bad input", **_answers(Problem)},
    503: {"description": "Too busy: nothing happened, try again", **_answers(Problem)},
    504: {"description": "No answer in time: it may or may not have happened", **_answers(Problem)},
}

router = APIRouter(prefix="/todo-list", tags=["todo-list"], responses=_ALWAYS)


@router.get("/", responses={200: _answers(list[TodoListListItemView])})
async def search_todo_lists(
    todo_lists: TodoLists, name_like: NameLike = "", page: Page = 0, seen: Seen = 0
) -> Response:
    """Find lists by name, the newest first."""
    return json_response(await todo_lists.search_todo_list(name_like, page, seen))


@router.get("/{identifier}", responses={200: _answers(TodoListView), **_UNKNOWN})
async def find_todo_list(todo_lists: TodoLists, identifier: str, seen: Seen = 0) -> Response:
    """Show a list with its todos."""
    return json_response(await todo_lists.find_todo_list_by_identifier(identifier, seen))


@router.post("/", status_code=201, responses=_CREATED)
async def create_todo_list(todo_lists: TodoLists, request: TodoListCreateRequest, user: User) -> Response:
    """Create a list."""
    return _created(await todo_lists.create_todo_list(request.name, user))


@router.delete("/{identifier}", status_code=204, responses={**_DONE, **_UNKNOWN, **_BROKEN_RULE})
async def delete_todo_list(todo_lists: TodoLists, identifier: str, user: User) -> Response:
    """Delete a list without checked todos."""
    return _done(await todo_lists.delete_todo_list(identifier, user))


@router.post("/{identifier}/todo/", status_code=201, responses={**_CREATED, **_UNKNOWN, **_BROKEN_RULE})
async def add_todo(todo_lists: TodoLists, identifier: str, request: TodoCreateRequest, user: User) -> Response:
    """Add a todo to a list, which takes five."""
    return _created(await todo_lists.add_todo(identifier, request.content, user))


@router.delete("/{identifier}/todo/{todo_identifier}", status_code=204, responses={**_DONE, **_UNKNOWN, **_BROKEN_RULE})
async def remove_todo(todo_lists: TodoLists, identifier: str, todo_identifier: str, user: User) -> Response:
    """Remove a todo that is not checked."""
    return _done(await todo_lists.remove_todo(identifier, todo_identifier, user))


@router.put(
    "/{identifier}/todo/{todo_identifier}",
    status_code=202,
    responses={202: _POSITION, **_UNKNOWN, **_BROKEN_RULE},
)
async def check_todo(todo_lists: TodoLists, identifier: str, todo_identifier: str, user: User) -> Response:
    """Check a todo."""
    return _done(await todo_lists.check_todo(identifier, todo_identifier, user), HTTPStatus.ACCEPTED)


streams = APIRouter(prefix="/sse", include_in_schema=False)  # OpenAPI has no words for streams


@streams.get("/todo-lists")
async def follow_todo_lists(updates: Updates) -> Response:
    """Tell of the changes of all lists."""
    return EventStream(updates)


@streams.get("/todo-list/{identifier}")
async def follow_todo_list(updates: Updates, identifier: str) -> Response:
    """Tell of the changes of a list."""
    return EventStream(updates, identifier)


def _created(written: Written) -> Response:
    return json_response(CreatedResponse(written.identifier), 201, {POSITION_HEADER: str(written.position)})


def _done(written: Written, status: HTTPStatus = HTTPStatus.NO_CONTENT) -> Response:
    return Response(None, status, {POSITION_HEADER: str(written.position)})


def create_web(lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """Make the web application; it finds the invoker that does the work in ``app.state.todo_lists``.

    Its streams follow ``app.state.updates``.
    """
    app = FastAPI(title="TodoList", version="1", description=__doc__ or "", lifespan=lifespan)
    app.include_router(router)
    app.include_router(streams)
    install_error_handlers(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Describe the endpoints, and the schemas of the views beside those of the requests."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        shown = [TodoListListItemView, TodoListView, CreatedResponse, Problem]
        _, schemas = msgspec.json.schema_components(shown, ref_template="#/components/schemas/{name}")
        document.setdefault("components", {}).setdefault("schemas", {}).update(schemas)
        app.openapi_schema = document
    return app.openapi_schema
