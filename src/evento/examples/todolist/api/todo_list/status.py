"""How far a todo list has come, and what it is to other systems."""

from enum import Enum

__all__ = ["RESOURCE_TYPE", "TodoListStatus"]

RESOURCE_TYPE = "TodoList"
"""As what other systems know todo lists."""


class TodoListStatus(Enum):
    """The way of a list from its first todo to its registration in the ERP system."""

    WIP = "WIP"
    REGISTRATION_PENDING = "REGISTRATION_PENDING"
    REGISTERED = "REGISTERED"
