"""A whole system in memory, and what the kit as a whole promises."""

from __future__ import annotations

import asyncio
import gc
import inspect
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from shop import COMPONENTS, Ledger, OrderFindQuery, OrderInvoker, OrderPlaceCommand, Orders, OrderView
from waiting import eventually

import evento.testing
from evento import CommandRejected, EventoBundle, Stopped
from evento.testing import BundleOptions, embedded

INJECTOR = {Orders: Orders(), Ledger: Ledger()}


async def test_a_system_runs_until_the_block_ends() -> None:
    injector = {Orders: Orders(), Ledger: Ledger()}
    async with embedded(components=COMPONENTS, injector=injector) as system:
        assert await system.invoker(OrderInvoker).place("ORD_1", "ann") == "ORD_1"
        await system.consumers_caught_up()
        assert await system.queries.query(OrderFindQuery("ORD_1")) == OrderView("ORD_1", "ann", 0)

    with pytest.raises(Stopped):
        await system.commands.send(OrderPlaceCommand("ORD_2", "ann"))


async def test_packages_are_scanned() -> None:
    async with embedded(packages=["evento.examples.todolist.api"]) as system:
        assert system.is_running
        assert system.bundle_id == "test"


async def test_it_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVENTO_SERVER", "embedded:elsewhere.db")
    threads, tasks = set(threading.enumerate()), asyncio.all_tasks()

    async with embedded(components=COMPONENTS, injector=INJECTOR, bundle_id="shop") as system:
        await system.commands.send(OrderPlaceCommand("ORD_1", "ann"))

    gc.collect()
    assert list(tmp_path.iterdir()) == []
    assert asyncio.all_tasks() == tasks
    await eventually(lambda: not set(threading.enumerate()) - threads)  # the last word of a thread is not its end yet


async def test_an_error_in_the_block_stops_the_system() -> None:
    with pytest.raises(CommandRejected, match="customer"):
        async with embedded(components=COMPONENTS, injector=INJECTOR) as system:
            await system.commands.send(OrderPlaceCommand("ORD_1", ""))
    assert not system.is_running


async def test_two_systems_know_nothing_of_each_other() -> None:
    async with (
        embedded(components=COMPONENTS, injector=INJECTOR) as one,
        embedded(components=COMPONENTS, injector=INJECTOR) as other,
    ):
        await one.commands.send(OrderPlaceCommand("ORD_1", "ann"))
        await other.commands.send(OrderPlaceCommand("ORD_1", "bob"))


def test_the_options_are_those_of_a_bundle() -> None:
    own = {"bundle_id", "components", "packages"}
    distributed = {"server", "token", "tls", "cluster", "start_timeout"}
    parameters = set(inspect.signature(EventoBundle).parameters)

    assert set(BundleOptions.__annotations__) == parameters - own - distributed


def test_the_kit_needs_no_test_runner() -> None:
    code = "import sys, evento.testing; print(sorted({'pytest', '_pytest', 'unittest.mock'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", evento.testing.__all__)
def test_everything_public_is_documented(name: str) -> None:
    value = getattr(evento.testing, name)

    assert value.__doc__
    members = [member for member in vars(value) if not member.startswith("_")] if inspect.isclass(value) else []
    assert [member for member in members if not inspect.getdoc(getattr(value, member))] == []


def test_exported_names_are_sorted() -> None:
    assert evento.testing.__all__ == sorted(evento.testing.__all__)
