"""What tests of the testing kit share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def fails(*parts: str) -> Iterator[None]:
    """Expect an AssertionError that says all of this; its first part is how it begins."""
    with pytest.raises(AssertionError) as caught:
        yield
    message = str(caught.value)
    assert message.startswith(parts[0]), message
    for part in parts[1:]:
        assert part in message, message
