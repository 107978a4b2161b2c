"""What the packages export."""

from __future__ import annotations

from types import ModuleType

import pytest

import evento.components
import evento.messages


@pytest.mark.parametrize("package", [evento.components, evento.messages], ids=lambda one: one.__name__)
def test_exports_exist_once_and_are_documented(package: ModuleType) -> None:
    names = package.__all__
    assert len(names) == len(set(names))
    for name in names:
        thing = getattr(package, name)
        assert thing.__doc__, name
