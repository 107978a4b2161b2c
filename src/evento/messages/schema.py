"""JSON schemas of payloads, for catalogues."""

from __future__ import annotations

from typing import Any

import msgspec

from evento.messages.definition import definition_of

__all__ = ["json_schema"]


def json_schema(payload: type) -> dict[str, Any]:
    """Return the JSON schema (2020-12) of a payload class; types that have none are described as any value."""
    definition = definition_of(payload)
    try:
        return msgspec.json.schema(payload, schema_hook=lambda _: {})
    except TypeError as error:
        raise definition.error(f"no JSON schema can be made: {error}") from error
