"""JSON schemas of payloads, for catalogues."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from evento.messages.definition import definition_of

__all__ = ["json_schema"]


def json_schema(payload: type) -> dict[str, Any]:
    """Return the JSON schema (2020-12) of a payload class, with its docstring as description."""
    definition = definition_of(payload)
    try:
        schema = msgspec.json.schema(payload)
    except TypeError as error:
        raise definition.error(f"no JSON schema can be made: {error}") from error
    for part in schema.get("$defs", {}).values():
        if "description" in part:
            part["description"] = inspect.cleandoc(part["description"])
    return schema
