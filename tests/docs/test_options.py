"""The tables of options have every option with its default, and nothing else."""

import inspect
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from documents import DOCS

from evento import (
    Aggregate,
    EventoBundle,
    Invoker,
    Observer,
    Projection,
    Projector,
    Saga,
    Service,
    aggregate_command_handler,
    command_handler,
    event_handler,
    query_handler,
    saga_event_handler,
)

COMPONENTS = DOCS / "components"
OF_THE_DEFINITION = {
    "version": "mandatory",
    "contexts": ("*",),
    "snapshot_frequency": -1,
    "snapshot_version": 1,
    "wait_for_head_reached": False,
    "projectors": "all of the bundle",
    "abstract": False,
}
"""Class keywords default to None, which means the base's value, and in the end this."""

PAGES: list[tuple[str, type, Callable[..., Any] | None]] = [
    ("aggregate", Aggregate, aggregate_command_handler),
    ("service", Service, command_handler),
    ("projector", Projector, event_handler),
    ("projection", Projection, query_handler),
    ("saga", Saga, saga_event_handler),
    ("observer", Observer, event_handler),
    ("invoker", Invoker, None),
]


def parameters(function: Callable[..., Any]) -> dict[str, Any]:
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def rows(page: Path) -> dict[str, str]:
    """The rows "| `name` | default |" of a page's tables, also those of a decorator's further options."""
    found = re.findall(r"^\|(?: `@\w+` \|| \|)? `(\w+)` \| ([^|]+?) \|", page.read_text(), re.MULTILINE)
    assert len(found) == len(dict(found)), f"{page.name}: an option is there twice"
    return dict(found)


def told(default: str) -> Any:
    if not default.startswith("`"):
        return default
    return eval(default.strip("`"), {"timedelta": timedelta})


def test_the_options_of_the_bundle() -> None:
    options = {name: told(default) for name, default in rows(DOCS / "bundle.md").items()}

    assert options == {"bundle_id": "mandatory", **parameters(EventoBundle.__init__)}


@pytest.mark.parametrize(("page", "cls", "decorator"), PAGES, ids=[page for page, _, _ in PAGES])
def test_the_options_of_components(page: str, cls: type, decorator: Callable[..., Any] | None) -> None:
    file = COMPONENTS / f"{page}.md"
    if page in {"service", "invoker"}:
        assert "class keyword `abstract` (default `False`)" in file.read_text()
    options = {name: told(default) for name, default in rows(file).items()}
    keywords = parameters(cls.__init_subclass__) if page not in {"service", "invoker"} else {}
    marks = parameters(decorator) if decorator is not None else {}

    assert options == {
        **{name: OF_THE_DEFINITION[name] for name in keywords},
        **{name: "mandatory" if name == "association_property" else value for name, value in marks.items()},
    }
