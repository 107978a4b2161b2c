"""Starting, stopping, starting again; and everything that must keep a bundle from starting."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from shop import (
    COMPONENTS,
    ItemAddCommand,
    MailSendCommand,
    OrderAggregate,
    OrderFindQuery,
    OrderPlaceCommand,
    Orders,
)

from evento import (
    Aggregate,
    AggregateId,
    AggregateState,
    CommandGateway,
    ConsumerExecutor,
    DefinitionError,
    DomainCommand,
    DomainEvent,
    EventoBundle,
    Observer,
    Service,
    ServiceCommand,
    ServiceEvent,
    Stopped,
    StoreInUse,
    StoreMismatch,
    StoreUnavailable,
    ThreadExecutor,
    aggregate_command_handler,
    command_handler,
    event_handler,
)
from evento.bundle import running

MakeBundle = Callable[..., EventoBundle]


async def test_a_bundle_continues_on_its_data_after_a_restart(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    async with bundle:
        await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
    async with bundle:
        message = await bundle.commands.send_message(ItemAddCommand("ORD_1", "tea"))
        assert (message.position, message.version) == (2, 2)


async def test_a_projector_goes_on_where_it_was_and_a_new_version_starts_over(make_bundle: MakeBundle) -> None:
    orders = Orders()
    async with make_bundle(orders=orders) as bundle:
        await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
        await bundle.consumers_caught_up()
    kept = Orders()
    async with make_bundle(orders=kept) as bundle:
        await bundle.commands.send(OrderPlaceCommand("ORD_2", "bob"))
        await bundle.consumers_caught_up()
    assert set(kept.rows) == {"ORD_2"}


async def test_in_memory_bundles_share_nothing(make_bundle: MakeBundle) -> None:
    for _ in range(2):
        async with make_bundle(server="embedded:") as bundle:
            message = await bundle.commands.send_message(OrderPlaceCommand("ORD_1", "ann"))
            assert message.position == 1
            await bundle.consumers_caught_up()


async def test_the_server_comes_from_the_environment(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTO_SERVER", f"embedded:{tmp_path / 'from-env.db'}")
    async with make_bundle(server=None):
        assert (tmp_path / "from-env.db").exists()


async def test_a_bundle_that_does_not_run_says_so(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    with pytest.raises(Stopped, match="shop-bundle"):
        _ = bundle.commands
    async with bundle:
        commands = bundle.commands
    with pytest.raises(Stopped, match="OrderPlaceCommand was not sent"):
        await commands.send(OrderPlaceCommand("ORD_1", "ann"))
    await bundle.stop()


async def test_starting_twice_is_refused(bundle: EventoBundle) -> None:
    with pytest.raises(DefinitionError, match="started already"):
        await bundle.start()


async def test_starting_twice_at_once_is_refused(make_bundle: MakeBundle) -> None:
    bundle = make_bundle(server="embedded:")
    outcomes = await asyncio.gather(bundle.start(), bundle.start(), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), DefinitionError]
    await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
    await bundle.stop()
    async with bundle:
        pass


async def test_a_start_during_a_stop_is_refused_and_works_afterwards(make_bundle: MakeBundle) -> None:
    bundle = make_bundle(server="embedded:")
    await bundle.start()
    stopping = asyncio.create_task(bundle.stop())
    await asyncio.sleep(0)
    with pytest.raises(DefinitionError, match="still stopping"):
        await bundle.start()
    await stopping
    async with bundle:
        await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))


async def test_a_second_bundle_on_the_same_file_is_refused_and_the_first_goes_on(make_bundle: MakeBundle) -> None:
    async with make_bundle() as first:
        with pytest.raises(StoreInUse, match=f"this process .{os.getpid()}"):
            await make_bundle().start()
        await first.commands.send(OrderPlaceCommand("ORD_1", "ann"))
    async with make_bundle():
        pass


async def test_on_started_is_called_and_its_failure_stops_the_bundle(make_bundle: MakeBundle) -> None:
    started: list[str] = []

    async def hook(bundle: EventoBundle) -> None:
        started.append(bundle.bundle_id)
        raise ValueError("no")

    bundle = make_bundle(on_started=hook)
    with pytest.raises(ValueError, match="no"):
        await bundle.start()
    assert started == ["shop-bundle"]
    assert not bundle.is_running
    async with make_bundle():
        pass


async def test_stopping_lets_running_handlers_end(make_bundle: MakeBundle) -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    class WaitCommand(ServiceCommand[None]):
        pass

    class WaitService(Service):
        @command_handler
        async def wait(self, command: WaitCommand) -> None:
            entered.set()
            await release.wait()

    bundle = make_bundle(components=[WaitService])
    await bundle.start()
    running = asyncio.create_task(bundle.commands.send(WaitCommand()))
    await entered.wait()
    stopping = asyncio.create_task(bundle.stop())
    await asyncio.sleep(0)
    release.set()
    await running
    await stopping


async def test_a_stop_has_one_deadline_for_all_handlers(
    make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "DRAIN_SECONDS", 4.0)
    monkeypatch.setattr(running, "LAST_SECONDS", 0.1)
    hanging = asyncio.Barrier(3)

    class SentEvent(ServiceEvent):
        pass

    class SendCommand(ServiceCommand[SentEvent]):
        pass

    class HangCommand(ServiceCommand[None]):
        @property
        def lock_id(self) -> str:
            return "hanging"  # it is renewed by a background task

    class HangingService(Service):
        @command_handler
        async def send(self, command: SendCommand) -> SentEvent:
            return SentEvent()

        @command_handler
        async def hang(self, command: HangCommand) -> None:
            await hanging.wait()
            await asyncio.Event().wait()

    class HangingObserver(Observer, version=1):
        @event_handler
        async def on_sent(self, event: SentEvent) -> None:
            await hanging.wait()
            await asyncio.Event().wait()

    bundle = make_bundle(components=[HangingService, HangingObserver])
    await bundle.start()
    sending = asyncio.create_task(bundle.commands.send(HangCommand()))
    await bundle.commands.send(SendCommand())
    await hanging.wait()
    async with asyncio.timeout(7.5):  # a second deadline would make it eight at least
        await bundle.stop()
    sending.cancel()
    await asyncio.wait({sending})


async def test_a_running_handler_may_still_send_while_the_bundle_stops(make_bundle: MakeBundle) -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    class SendLaterCommand(ServiceCommand[None]):
        pass

    class LaterService(Service):
        @command_handler
        async def later(self, command: SendLaterCommand, commands: CommandGateway) -> None:
            entered.set()
            await release.wait()
            await commands.send(OrderPlaceCommand("ORD_1", "ann"))

    bundle = make_bundle(components=[*COMPONENTS, LaterService])
    await bundle.start()
    running = asyncio.create_task(bundle.commands.send(SendLaterCommand()))
    await entered.wait()
    stopping = asyncio.create_task(bundle.stop())
    while True:
        try:
            await bundle.commands.send(MailSendCommand("until it is refused"))
        except Stopped:
            break
        await asyncio.sleep(0)
    release.set()
    await running
    await stopping
    async with make_bundle() as bundle:
        message = await bundle.commands.send_message(ItemAddCommand("ORD_1", "tea"))
        assert message.version == 2


async def test_lifespan_runs_the_bundle_with_an_application(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    async with bundle.lifespan(object()):
        assert bundle.is_running
    assert not bundle.is_running


async def test_packages_are_scanned_for_components_and_payloads(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "boxes" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "boxes" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (tmp_path / "boxes" / "api.py").write_text(
        dedent(
            """
            from evento import AggregateId, DomainCommand, DomainEvent
            class BoxOpenedEvent(DomainEvent):
                box_id: str
            class BoxOpenCommand(DomainCommand):
                box_id: AggregateId
            """
        )
    )
    (package / "aggregate.py").write_text(
        dedent(
            """
            from evento import Aggregate, AggregateState, aggregate_command_handler
            from boxes.api import BoxOpenCommand, BoxOpenedEvent
            class BoxState(AggregateState):
                pass
            class Box(Aggregate[BoxState]):
                @aggregate_command_handler(init=True)
                def open(self, command: BoxOpenCommand) -> BoxOpenedEvent:
                    return BoxOpenedEvent(command.box_id)
            """
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    async with make_bundle(components=[], packages=["boxes"]) as bundle:
        from boxes.api import BoxOpenCommand, BoxOpenedEvent  # type: ignore[import-not-found]

        assert await bundle.commands.send(BoxOpenCommand("BOX_1")) == BoxOpenedEvent("BOX_1")
    for name in [name for name in sys.modules if name.startswith("boxes")]:
        del sys.modules[name]


def _command(name: str) -> tuple[type, type]:
    class MadeEvent(DomainEvent, name=f"{name}Event"):
        made_id: str

    class MakeCommand(DomainCommand[MadeEvent], name=name):
        made_id: AggregateId

    class MadeState(AggregateState):
        pass

    class Maker(Aggregate[MadeState]):
        @aggregate_command_handler(init=True)
        def make(self, command: MakeCommand) -> MadeEvent:
            return MadeEvent(command.made_id)

    return MakeCommand, Maker


def _strange(**keywords: Any) -> Any:
    return keywords


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (_strange(server="mars:1"), "is no address"),
        (_strange(server="nats://localhost:3030"), "must be told where to keep their places"),
        (_strange(packages="shop"), r"packages=\['shop'\]"),
        (_strange(packages=["no_such_package"]), "cannot be found"),
        (_strange(components=[int]), "component"),
        (_strange(components=[object()]), "not an instance"),
        (_strange(injector={}), "nothing provides the constructor's parameter 'ledger'"),
        (_strange(sss_fetch_size=0), "fetch_size"),
        (_strange(max_in_flight_requests=0), "max_in_flight_requests"),
        (_strange(contexts={OrderAggregate: "eu"}), "list of at least one"),
        (_strange(contexts={OrderAggregate: ["eu"]}), "OrderAggregate, which is no projector"),
        (_strange(executors=[ThreadExecutor("x", 0)]), "at least one thread"),
        (_strange(consumer_state_store="nosuchdb://"), "nosuchdb"),
    ],
)
async def test_a_wrong_option_is_a_clear_error(make_bundle: MakeBundle, options: Any, message: str) -> None:
    with pytest.raises((DefinitionError, StoreUnavailable), match=message):
        await make_bundle(**options).start()


async def test_two_payload_classes_with_one_wire_name_are_refused(make_bundle: MakeBundle) -> None:
    _, first = _command("TwiceCommand")

    class TwiceEvent(DomainEvent, name="TwiceCommandEvent"):
        other: str

    class Twice(Service):
        @command_handler
        def twice(self, command: OtherCommand) -> None: ...

    with pytest.raises(DefinitionError, match="two payload classes have the wire name 'TwiceCommand'"):
        await make_bundle(components=[first, Twice]).start()


class OtherCommand(ServiceCommand[None], name="TwiceCommand"):
    pass


async def test_a_command_with_two_handlers_is_refused(make_bundle: MakeBundle) -> None:
    class OneCommand(ServiceCommand[None]):
        pass

    class First(Service):
        @command_handler
        def one(self, command: OneCommand) -> None: ...

    class Second(Service):
        @command_handler
        def one(self, command: OneCommand) -> None: ...

    with pytest.raises(DefinitionError, match=r"handled by First\.one and by Second\.one"):
        await make_bundle(components=[First, Second]).start()


async def test_an_unknown_executor_is_refused(make_bundle: MakeBundle) -> None:
    class ExecCommand(ServiceCommand[None]):
        pass

    class Exec(Service):
        @command_handler(executor="reports")
        def one(self, command: ExecCommand) -> None: ...

    with pytest.raises(DefinitionError, match="the executor 'reports'"):
        await make_bundle(components=[Exec]).start()
    async with make_bundle(components=[Exec], executors=[ThreadExecutor("reports", 1)]) as bundle:
        await bundle.commands.send(ExecCommand())


@pytest.mark.parametrize(
    "second", [ThreadExecutor("reports", 4), ConsumerExecutor.partitioned("reports", 4)], ids=["threads", "lanes"]
)
async def test_two_executors_of_one_name_are_refused(make_bundle: MakeBundle, second: Any) -> None:
    bundle = make_bundle(components=[OrderAggregate], executors=[ThreadExecutor("reports", 2), second])
    with pytest.raises(DefinitionError, match=r"name 'reports', ThreadExecutor\(.*threads=2\) and \w+\(.*=4\)"):
        await bundle.start()


async def test_the_pool_that_every_bundle_has_may_be_made_larger(make_bundle: MakeBundle) -> None:
    async with make_bundle(components=[OrderAggregate], executors=[ThreadExecutor("threads", 20)]):
        pass


async def test_a_checkpoint_of_another_store_refuses_to_start(make_bundle: MakeBundle, tmp_path: Path) -> None:
    async with make_bundle() as bundle:
        await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
        await bundle.consumers_caught_up()
    for leftover in tmp_path.glob("shop.db*"):
        if not leftover.name.startswith("shop.db-consumers"):
            leftover.unlink()
    with pytest.raises(StoreMismatch, match="OrderProjector"):
        await make_bundle().start()


async def test_consumer_state_in_the_file_of_the_event_store_is_refused(
    make_bundle: MakeBundle, tmp_path: Path
) -> None:
    with pytest.raises(DefinitionError, match="the event store's own file"):
        await make_bundle(consumer_state_store=f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}").start()
    assert not (tmp_path / "shop.db").exists()


async def test_an_empty_module_is_no_confinement_problem(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hollow").mkdir()
    (tmp_path / "hollow" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    async with make_bundle(packages=["hollow"], strict_confinement=True):
        pass
    del sys.modules["hollow"]


async def test_a_failed_start_leaves_nothing_open(make_bundle: MakeBundle) -> None:
    class WantsMore(Service):
        def __init__(self, nothing: bytearray) -> None: ...

        @command_handler
        def more(self, command: OtherCommand) -> None: ...

    with pytest.raises(DefinitionError, match="bytearray"):
        await make_bundle(components=[*COMPONENTS, WantsMore]).start()
    async with make_bundle() as bundle:
        message = await bundle.commands.send_message(OrderPlaceCommand("ORD_1", "ann"))
        await bundle.queries.query(OrderFindQuery("ORD_1"), at_least=message.position)


async def test_constructor_hints_may_be_strings_that_name_local_classes(make_bundle: MakeBundle) -> None:
    class Clock:
        pass

    made: list[Clock] = []

    class Ticker(Service):
        def __init__(self, clock: Clock, commands: CommandGateway, size: int = 3) -> None:
            made.append(clock)

        @command_handler
        def tick(self, command: OtherCommand) -> None: ...

    clock = Clock()
    async with make_bundle(components=[Ticker], injector={Clock: clock}):
        assert made == [clock]


@pytest.mark.parametrize("as_callable", [False, True])
async def test_optional_constructor_parameters_are_injected_when_something_provides_them(
    make_bundle: MakeBundle, as_callable: bool
) -> None:
    class Clock:
        pass

    class Bell:
        pass

    made: list[tuple[Clock | None, Bell | None, object]] = []

    class Ticker(Service):
        def __init__(
            self, clock: Clock | None = None, bell: Bell | None = None, commands: CommandGateway | None = None
        ) -> None:
            made.append((clock, bell, commands))

        @command_handler
        def tick(self, command: OtherCommand) -> None: ...

    clock = Clock()
    known = {Clock: clock}
    async with make_bundle(components=[Ticker], injector=known.__getitem__ if as_callable else known) as bundle:
        assert made == [(clock, None, bundle.commands)]


async def test_a_cancelled_start_leaves_nothing_open(make_bundle: MakeBundle) -> None:
    blocked = asyncio.Event()

    async def hook(_: EventoBundle) -> None:
        blocked.set()
        await asyncio.Event().wait()

    starting = asyncio.create_task(make_bundle(on_started=hook).start())
    await blocked.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    async with make_bundle():
        pass


async def test_wait_for_head_reached_delays_the_start(make_bundle: MakeBundle) -> None:
    from shop import OrderPlacedEvent

    from evento import Projector, ProjectorStatus

    seen: list[bool] = []

    class Patient(Projector, version=1, wait_for_head_reached=True):
        @event_handler
        async def on_placed(self, event: OrderPlacedEvent, status: ProjectorStatus) -> None:
            await asyncio.sleep(0)
            seen.append(status.head_reached)

    async with make_bundle() as bundle:
        for number in range(10):
            await bundle.commands.send(OrderPlaceCommand(f"ORD_{number}", "ann"))
    async with make_bundle(components=[*COMPONENTS, Patient]) as bundle:
        assert seen == [False] * 10
        await bundle.commands.send(OrderPlaceCommand("ORD_X", "ann"))
        await bundle.consumers_caught_up()
        assert seen == [False] * 10 + [True]
