"""Workers: their threads end, whatever happens in them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from evento.state_store.sqlite.worker import Worker


class Stubborn:
    def close(self) -> None:
        raise OSError("it cannot be closed")


def _echo(resource: Stubborn, operations: Sequence[Any]) -> Sequence[Any]:
    return operations


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_resource_that_cannot_be_closed_keeps_nobody_waiting() -> None:
    async with Worker("stubborn", open=Stubborn, run=_echo) as worker:
        assert await worker.submit("work") == "work"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stubborn")]
