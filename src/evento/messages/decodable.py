"""Decoders, made only for types that msgspec really can decode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

__all__ = ["decoder_for"]


def decoder_for(hint: Any) -> msgspec.json.Decoder[Any]:
    """Return the JSON decoder of a type.

    :raises TypeError: it holds a type that cannot be decoded from JSON. msgspec itself takes classes that it does not
        know and fails with the first value.
    """
    try:
        decoder = msgspec.json.Decoder(hint)
        unknown = next(_unknown_types(inspect.type_info(hint), set()), None)
    except (NameError, AttributeError) as error:
        raise TypeError(f"{error}: a struct's own annotations must name types of its module") from error
    if unknown is not None:
        name = f"{unknown.__module__}.{unknown.__qualname__}"
        raise TypeError(f"{name} is no struct, dataclass, enum or other type that msgspec knows")
    return decoder


def _unknown_types(node: Any, seen: set[int]) -> Iterator[type]:
    """Yield the classes in a description of a type that msgspec has no decoder for; types may be recursive."""
    if isinstance(node, inspect.CustomType):
        yield node.cls
    elif isinstance(node, (inspect.Type, inspect.Field)) and id(node) not in seen:
        seen.add(id(node))
        for name in node.__struct_fields__:
            yield from _unknown_types(getattr(node, name), seen)
    elif isinstance(node, tuple):
        for one in node:
            yield from _unknown_types(one, seen)
