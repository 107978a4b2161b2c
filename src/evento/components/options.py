"""The class keywords of components, each with its check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evento.components.definition import Role

__all__ = ["check_option"]


def check_option(name: str, value: Any) -> str | None:
    """Return what is wrong with the value of a class keyword, and the mend; None when it is right."""
    return _CHECKS[name](name, value)


def _number_from(least: int, meaning: str) -> Callable[[str, Any], str | None]:
    def check(name: str, value: Any) -> str | None:
        if isinstance(value, int) and not isinstance(value, bool) and value >= least:
            return None
        return f"{name}={value!r} must be a whole number from {least}{meaning}"

    return check


def _flag(name: str, value: Any) -> str | None:
    return None if isinstance(value, bool) else f"{name}={value!r} must be True or False"


def _contexts(name: str, value: Any) -> str | None:
    if not isinstance(value, tuple) or not value or not all(isinstance(one, str) and one for one in value):
        return f'{name}={value!r} must be a tuple of one or more contexts, such as ("eu", "us"), or ("*",) for all'
    if len(set(value)) != len(value):
        return f"{name}={value!r} names a context twice: remove one"
    return None


def _projectors(name: str, value: Any) -> str | None:
    if isinstance(value, tuple) and all(getattr(one, "__evento_role__", None) is Role.PROJECTOR for one in value):
        return None
    return f"{name}={value!r} must be a tuple of Projector classes, such as (OrderProjector,)"


_CHECKS: dict[str, Callable[[str, Any], str | None]] = {
    "version": _number_from(1, ""),
    "snapshot_version": _number_from(1, ""),
    "snapshot_frequency": _number_from(-1, " (-1: never)"),
    "wait_for_head_reached": _flag,
    "contexts": _contexts,
    "projectors": _projectors,
}
