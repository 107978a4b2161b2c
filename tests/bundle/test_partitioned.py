"""Partitioned executors in a real bundle: read models that are built side by side, and what cannot be."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from shop import ItemAddCommand, ItemAddedEvent, OrderAggregate, OrderPlaceCommand, OrderPlacedEvent
from sqlalchemy.ext.asyncio import AsyncSession
from waiting import eventually

from evento import (
    ConsumerExecutor,
    DefinitionError,
    EventMessage,
    EventoBundle,
    Observer,
    Projection,
    Projector,
    Query,
    Service,
    ServiceCommand,
    View,
    command_handler,
    event_handler,
    query_handler,
)

MakeBundle = Callable[..., EventoBundle]
LANES = ConsumerExecutor.partitioned("lanes", 4)


class Model:
    """The read model: what was written for each order, and how many handlers ran at a time."""

    def __init__(self) -> None:
        self.skus: dict[str, list[str]] = defaultdict(list)
        self.opened = asyncio.Event()
        self.opened.set()
        self.running = self.most = 0


class ModelView(View):
    skus: list[str]


class ModelQuery(Query[ModelView]):
    order_id: str


class ModelProjector(Projector, version=1):
    def __init__(self, model: Model) -> None:
        self._model = model

    @event_handler(executor="lanes")
    async def on_added(self, event: ItemAddedEvent) -> None:
        model = self._model
        model.running += 1
        model.most = max(model.most, model.running)
        await asyncio.sleep(0)
        await model.opened.wait()
        model.skus[event.order_id].append(event.sku)
        model.running -= 1

    @event_handler
    def on_placed(self, event: OrderPlacedEvent, message: EventMessage[OrderPlacedEvent]) -> None:
        self._model.skus[event.order_id] = []


class ModelProjection(Projection, projectors=(ModelProjector,)):
    def __init__(self, model: Model) -> None:
        self._model = model

    @query_handler
    def find(self, query: ModelQuery) -> ModelView:
        return ModelView(list(self._model.skus[query.order_id]))


def modelled(make_bundle: MakeBundle, model: Model) -> EventoBundle:
    return make_bundle(
        components=[OrderAggregate, ModelProjector, ModelProjection],
        injector={Model: model},
        executors=[LANES],
    )


async def fill(bundle: EventoBundle, order: str, count: int) -> None:
    await bundle.commands.send(OrderPlaceCommand(order, "ann"))
    for number in range(count):
        await bundle.commands.send(ItemAddCommand(order, f"sku_{number}", 1))


async def test_a_read_model_is_built_side_by_side_and_in_order(make_bundle: MakeBundle) -> None:
    model = Model()
    async with modelled(make_bundle, model) as bundle:
        await asyncio.gather(*(fill(bundle, f"ORD_{number}", 10) for number in range(20)))
        await bundle.consumers_caught_up()
    again = Model()
    async with make_bundle(  # a new version replays, from the first event
        components=[OrderAggregate, _second_version(), ModelProjection], injector={Model: again}, executors=[LANES]
    ) as bundle:
        await bundle.consumers_caught_up()
    for built in (model, again):
        assert built.skus == {f"ORD_{number}": [f"sku_{one}" for one in range(10)] for number in range(20)}
    assert again.most == 4


def _second_version() -> type:
    return type("ModelProjector", (ModelProjector,), {"__module__": __name__}, version=2)


async def test_a_query_at_least_at_a_position_waits_for_the_lanes(make_bundle: MakeBundle) -> None:
    model = Model()
    async with modelled(make_bundle, model) as bundle:
        await fill(bundle, "ORD_1", 1)
        model.opened.clear()
        await bundle.commands.send(ItemAddCommand("ORD_1", "slow", 1))
        message = await bundle.commands.send_message(OrderPlaceCommand("ORD_2", "bob"))
        asking = asyncio.create_task(bundle.queries.query(ModelQuery("ORD_1"), at_least=message.position))
        (consumer,) = bundle._up().consumers._consumers.values()
        await eventually(lambda: model.running > 0 and len(consumer._waiters._waiting) > 0, within=10)
        assert not asking.done()
        model.opened.set()
        assert await asking == ModelView(["sku_0", "slow"])


async def test_a_stop_waits_for_the_lanes(make_bundle: MakeBundle) -> None:
    model = Model()
    async with modelled(make_bundle, model) as bundle:
        model.opened.clear()
        await fill(bundle, "ORD_1", 1)
        await eventually(lambda: model.running > 0, within=10)
        (consumer,) = bundle._up().consumers._consumers.values()
        stopping = asyncio.create_task(bundle.stop())
        await eventually(lambda: consumer._signals.stopping, within=10)
        model.opened.set()
        await stopping
    assert model.skus == {"ORD_1": ["sku_0"]}
    async with modelled(make_bundle, model) as bundle:
        await bundle.consumers_caught_up()
    assert model.skus == {"ORD_1": ["sku_0"]}


class ExactProjector(Projector, version=1):
    @event_handler(executor="lanes")
    async def on_placed(self, event: OrderPlacedEvent) -> None: ...

    @event_handler
    async def on_added(self, event: ItemAddedEvent, session: AsyncSession) -> None: ...


class LaneObserver(Observer, version=1):
    @event_handler(executor="lanes", retry_delay=timedelta(milliseconds=1))
    async def on_placed(self, event: OrderPlacedEvent) -> None: ...


class LaneCommand(ServiceCommand[None]):
    pass


class LaneService(Service):
    @command_handler(executor="lanes")
    def do(self, command: LaneCommand) -> None: ...


@pytest.mark.parametrize(
    ("component", "executors", "message"),
    [
        (ExactProjector, [LANES], "on_added asks for the transaction of the checkpoint"),
        (LaneObserver, [], "names the executor 'lanes', which the bundle does not have"),
        (LaneService, [LANES], "'lanes', which is partitioned, for the handlers of events only"),
        (LaneObserver, [ConsumerExecutor.partitioned("lanes", 0)], "needs at least one lane"),
        (LaneObserver, ["lanes"], "takes ThreadExecutor and ConsumerExecutor objects, not str"),
    ],
)
async def test_what_cannot_work_is_refused_at_the_start(
    make_bundle: MakeBundle, component: type, executors: list[Any], message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        await make_bundle(components=[OrderAggregate, component], injector=None, executors=executors).start()
