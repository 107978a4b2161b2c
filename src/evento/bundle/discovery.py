"""Discovery: the components and payloads of the packages that a bundle names."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType

from evento.components import ComponentDefinition, component_definition
from evento.errors import DefinitionError
from evento.messages import Payload

__all__ = ["Found", "discover", "modules_of"]


class Found:
    """What a scan has found: component definitions in the order of modules and lines, and payload classes."""

    def __init__(self) -> None:
        self.components: list[ComponentDefinition] = []
        self.payloads: list[type[Payload]] = []
        self.modules: list[ModuleType] = []


def discover(packages: Iterable[str], components: Iterable[type]) -> Found:
    """Import the packages with all their modules and collect what is defined there, with the components given.

    :raises DefinitionError: a package cannot be found, a class is no component, or two components have one name.
    """
    found = Found()
    classes: list[type] = []
    for name in packages:
        for module in modules_of(name):
            found.modules.append(module)
            for value in list(vars(module).values()):
                if not isinstance(value, type) or value.__module__ != module.__name__:
                    continue
                if issubclass(value, Payload):
                    found.payloads.append(value)
                elif _is_component(value):
                    classes.append(value)
    by_name: dict[str, ComponentDefinition] = {}
    for cls in (*classes, *components):
        definition = component_definition(cls)
        other = by_name.setdefault(definition.name, definition)
        if other.cls is not cls:
            raise definition.error(f"another component has the name {definition.name!r} ({other.source}): rename one")
    found.components = list(by_name.values())
    return found


def modules_of(package: str) -> Iterable[ModuleType]:
    """Import and yield a package's modules, the package first."""
    try:
        root = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or not (package == error.name or package.startswith(error.name + ".")):
            raise
        raise DefinitionError(
            f"the package {package!r} cannot be found: check packages=[...] of the bundle and the import path"
        ) from error
    yield root
    for info in pkgutil.walk_packages(getattr(root, "__path__", []), prefix=root.__name__ + "."):
        if not info.name.endswith(".__main__"):
            yield importlib.import_module(info.name)


def _is_component(cls: type) -> bool:
    return isinstance(cls.__dict__.get("__evento_component__"), ComponentDefinition)
