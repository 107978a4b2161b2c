"""``make demo-cluster``: PostgreSQL, two servers and three bundles, each a process of its own."""

import asyncio
import os
import sys

import pytest

from evento.testing.postgres import PostgresMissing, binaries


@pytest.mark.timeout(180)
async def test_events_flow_through_all_processes_and_nothing_stays_behind() -> None:
    try:
        binaries()
    except PostgresMissing as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "evento.examples.todolist.cluster", "--seconds", "4"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    said = output.decode()
    assert process.returncode == 0, said
    assert "server-a is ready" in said
    assert "server-b is ready" in said
    assert "TodoListCreatedEvent" in said
    assert " 0 failed" in said
    assert said.splitlines()[-1] == "Stopped."
