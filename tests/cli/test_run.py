"""``evento run``: user modules in the current folder, as a user would write them."""

from __future__ import annotations

import os
import signal
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

COMPONENTS = """
    from evento import (
        Aggregate, AggregateId, AggregateState, DomainCommand, DomainEvent, EventoBundle,
        aggregate_command_handler, event_sourcing_handler,
    )

    class OrderPlaceCommand(DomainCommand, domain="Order"):
        order_id: AggregateId

    class OrderPlacedEvent(DomainEvent, domain="Order"):
        order_id: str

    class OrderState(AggregateState):
        pass

    class OrderAggregate(Aggregate[OrderState]):
        @aggregate_command_handler(init=True)
        def place(self, command: OrderPlaceCommand) -> OrderPlacedEvent:
            return OrderPlacedEvent(command.order_id)

        @event_sourcing_handler
        def on_placed(self, event: OrderPlacedEvent) -> OrderState:
            return OrderState()
"""


@pytest.fixture
def module(tmp_path: Path) -> Callable[..., None]:
    """Write a module into the folder that the command runs in."""

    def write(source: str, *, name: str = "shop_app", components: bool = True) -> None:
        text = (textwrap.dedent(COMPONENTS) if components else "") + textwrap.dedent(source)
        (tmp_path / f"{name}.py").write_text(text)

    return write


def said(process: Any, words: str) -> None:
    """Wait until the process has said something."""
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"it ended with {process.wait()} and did not say {words!r}")


def running(process: Any) -> None:
    """Wait until the bundle says that it runs."""
    said(process, " runs; ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize(
    "source",
    [
        "bundle = EventoBundle('shop', version=1, components=[OrderAggregate])",
        "def bundle(): return EventoBundle('shop', version=1, components=[OrderAggregate])",
        "async def bundle(): return EventoBundle('shop', version=1, components=[OrderAggregate])",
        "class bundle:\n    made = EventoBundle('shop', version=1, components=[OrderAggregate])\nbundle = bundle.made",
    ],
    ids=["object", "function", "async-function", "attribute"],
)
def test_a_bundle_runs_until_a_signal_and_stops_gracefully(
    module: Any, process: Any, tmp_path: Path, source: str, number: signal.Signals
) -> None:
    module(source)
    run = process("run", "shop_app:bundle", EVENTO_SERVER="embedded:shop.db")
    running(run)
    assert (tmp_path / "shop.db").exists()
    run.send_signal(number)
    assert run.wait(30) == 0
    assert "Traceback" not in run.stderr.read()


def test_stopping_awaits_the_handlers_that_run(module: Any, process: Any, shell: Any, tmp_path: Path) -> None:
    module(
        """
        import asyncio
        import sys
        from pathlib import Path

        class SlowAggregate(Aggregate[OrderState]):
            @aggregate_command_handler(init=True)
            async def place(self, command: OrderPlaceCommand) -> OrderPlacedEvent:
                print("handling", file=sys.stderr, flush=True)
                await asyncio.to_thread(Path("go").read_text)  # until someone writes
                return OrderPlacedEvent(command.order_id)

            @event_sourcing_handler
            def on_placed(self, event: OrderPlacedEvent) -> OrderState:
                return OrderState()

        async def begin(bundle):
            bundle.task = asyncio.create_task(bundle.commands.send(OrderPlaceCommand("ORD_1")))

        bundle = EventoBundle("shop", components=[SlowAggregate], server="embedded:shop.db", on_started=begin)
        """
    )
    os.mkfifo(tmp_path / "go")
    run = process("run", "shop_app:bundle")
    said(run, "handling")
    run.send_signal(signal.SIGTERM)
    said(run, "is stopping")
    (tmp_path / "go").write_text("on")
    assert run.wait(30) == 0
    stored = shell("events", "list", "--json", "--store", "sqlite:shop.db").objects
    assert [event["name"] for event in stored] == ["OrderPlacedEvent"]


def test_the_server_option_goes_before_what_the_bundle_says(module: Any, process: Any, tmp_path: Path) -> None:
    module("bundle = EventoBundle('shop', version=1, components=[OrderAggregate], server='embedded:own.db')")
    run = process("run", "shop_app:bundle", "--server", "embedded:other.db", EVENTO_SERVER="embedded:third.db")
    running(run)
    run.send_signal(signal.SIGTERM)
    assert run.wait(30) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert "other.db" in names
    assert names.isdisjoint({"own.db", "third.db"})


def test_the_store_of_a_running_bundle_can_be_read_but_not_purged(
    module: Any, process: Any, shell: Any, tmp_path: Path
) -> None:
    module("bundle = EventoBundle('shop', version=1, components=[OrderAggregate], server='embedded:shop.db')")
    run = process("run", "shop_app:bundle")
    running(run)
    assert shell("store", "verify", "--store", "sqlite:shop.db").code == 0
    purge = shell("store", "purge", "--older-than", "0s", "--yes", "--store", "sqlite:shop.db")
    assert purge.code == 1
    assert str(run.pid) in purge.err


def test_a_second_bundle_on_the_same_file_is_one_clear_line(
    module: Any, process: Any, shell: Any, tmp_path: Path
) -> None:
    module("bundle = EventoBundle('shop', version=1, components=[OrderAggregate], server='embedded:shop.db')")
    run = process("run", "shop_app:bundle")
    running(run)
    second = shell("run", "shop_app:bundle")
    assert second.code == 1
    assert "could not start" in second.err
    assert str(run.pid) in second.err
    assert "Traceback" not in second.err


def test_a_signal_while_the_bundle_starts_ends_it(module: Any, process: Any) -> None:
    module(
        """
        import asyncio
        import sys

        async def started(*_):
            print("starting", file=sys.stderr, flush=True)
            await asyncio.Event().wait()

        bundle = EventoBundle("shop", version=1, components=[OrderAggregate], on_started=started)
        """
    )
    run = process("run", "shop_app:bundle")
    said(run, "starting")
    run.send_signal(signal.SIGTERM)
    assert run.wait(30) == 0
    assert "Traceback" not in run.stderr.read()


def test_a_second_signal_stops_at_once(module: Any, process: Any) -> None:
    module(
        """
        import asyncio
        import sys

        class SlowBundle(EventoBundle):
            async def stop(self):
                print("slow", file=sys.stderr, flush=True)
                try:
                    await asyncio.Event().wait()
                finally:
                    await super().stop()

        bundle = SlowBundle("shop", version=1, components=[OrderAggregate])
        """
    )
    run = process("run", "shop_app:bundle")
    running(run)
    run.send_signal(signal.SIGTERM)
    said(run, "slow")
    run.send_signal(signal.SIGTERM)
    assert run.wait(30) == 1
    assert "at once" in run.stderr.read()


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("", "nowhere:bundle", "there is no module nowhere, neither in "),
        ("", "shop_app.inner:bundle", "there is no module shop_app.inner"),
        (
            "import nowhere",
            "shop_app:bundle",
            "shop_app could not be imported: ModuleNotFoundError: No module named 'no",
        ),
        ("1 / 0", "shop_app:bundle", "shop_app could not be imported: ZeroDivisionError: division by zero ("),
        (
            "from evento import Observer\nclass Mail(Observer): pass",
            "shop_app:bundle",
            "shop_app could not be imported: Mail (",
        ),
        ("def broken(:", "shop_app:bundle", "shop_app could not be imported: SyntaxError: "),
        ("raise SystemExit(0)", "shop_app:bundle", "shop_app could not be imported: it called sys.exit(0)"),
        ("", "shop_app:bundle", "shop_app has no 'bundle'"),
        ("bundle = 'text'", "shop_app:bundle", "shop_app:bundle is a str: it must be an EventoBundle"),
        ("def bundle(): pass", "shop_app:bundle", "shop_app:bundle() returned a NoneType"),
        ("def bundle(): return 1 / 0", "shop_app:bundle", "shop_app:bundle() failed: ZeroDivisionError"),
        ("async def bundle(): return 1 / 0", "shop_app:bundle", "shop_app:bundle() failed: ZeroDivisionError"),
        ("def bundle(one): pass", "shop_app:bundle", "shop_app:bundle cannot be called without one: "),
        (
            "def bundle(*, one, two=2, **more): pass",
            "shop_app:bundle",
            "shop_app:bundle cannot be called without one: ",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_run_is_one_clear_line(module: Any, shell: Any, source: str, target: str, says: str) -> None:
    module(source, components=False)
    result = shell("run", target)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"evento: {says}")
    assert result.err.startswith(f"evento: {says}")
    assert len(result.err.splitlines()) == 1, result.err
    assert result.err.count("shop_app.py:") <= 1, "the place is told once"


def test_errors_in_the_users_code_name_the_line(module: Any, shell: Any, tmp_path: Path) -> None:
    module("\n1 / 0", components=False)
    assert f"({tmp_path}/shop_app.py:2)" in shell("run", "shop_app:bundle").err
    debug = shell("run", "shop_app:bundle", "--debug").err
    assert "Traceback" in debug
    assert "1 / 0" in debug


def test_a_missing_bundle_is_told_with_those_that_there_are(module: Any, shell: Any) -> None:
    module("orders = EventoBundle('shop', version=1, components=[OrderAggregate])")
    assert shell("run", "shop_app:bundle").err == "evento: shop_app has no 'bundle'; its bundles are: orders\n"


def test_an_error_while_the_bundle_starts_is_one_clear_line(module: Any, shell: Any) -> None:
    module(
        """
        def started(*_):
            raise ZeroDivisionError("no way")

        bundle = EventoBundle("shop", version=1, components=[OrderAggregate], on_started=started)
        """
    )
    result = shell("run", "shop_app:bundle")
    assert result.code == 1
    assert "Traceback" not in result.err
    assert "shop_app:bundle could not start: ZeroDivisionError: no way (" in result.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("shop_app", "MODULE:BUNDLE"),
        (":bundle", "MODULE:BUNDLE"),
        ("shop_app:", "MODULE:BUNDLE"),
        ("shop_app:a:b", "MODULE:BUNDLE"),
        ("shop/app.py:bundle", "write shop.app:bundle"),
        ("./shop/app.py", "write shop.app:bundle"),
    ],
)
def test_a_target_of_another_form_is_wrong_use(cli: Any, target: str, says: str) -> None:
    result = cli("run", target)
    assert result.code == 2
    assert says in result.err
