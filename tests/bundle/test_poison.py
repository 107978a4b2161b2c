"""A poison event at default settings: projector, saga and observer go on, tell of it, and lose nothing of it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from shop import ItemAddCommand, ItemAddedEvent, OrderAggregate, OrderPlaceCommand, OrderPlacedEvent
from waiting import eventually

from evento import (
    EventMessage,
    EventoBundle,
    Observer,
    Projector,
    Saga,
    SagaState,
    event_handler,
    saga_event_handler,
)
from evento.consumers import ConsumerId, ConsumerState, SqlConsumerStateStore

ROLES = ("ItemProjector", "ItemSaga", "ItemObserver")


class Outside:
    """What the handlers fill, and the defect that is to be mended."""

    def __init__(self, poison: str | None) -> None:
        self.poison = poison
        self.rows: dict[str, list[str]] = {}
        self.told: list[str] = []

    def check(self, event: ItemAddedEvent) -> None:
        if event.sku == self.poison:
            raise ValueError(f"cannot work with {event.sku}")


class ItemProjector(Projector, version=1):
    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    @event_handler
    def on_added(self, event: ItemAddedEvent) -> None:
        self._outside.check(event)
        self._outside.rows.setdefault(event.order_id, []).append(event.sku)


class ItemState(SagaState):
    skus: list[str] = []


class ItemSaga(Saga[ItemState], version=1):
    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    @saga_event_handler(init=True, association_property="order_id")
    def on_placed(self, event: OrderPlacedEvent) -> ItemState:
        state = ItemState()
        state.set_association("order_id", event.order_id)
        return state

    @saga_event_handler(association_property="order_id")
    def on_added(self, event: ItemAddedEvent, state: ItemState) -> None:
        self._outside.check(event)
        state.skus.append(event.sku)


class ItemObserver(Observer, version=1):
    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    @event_handler
    def on_added(self, event: ItemAddedEvent, message: EventMessage[ItemAddedEvent]) -> None:
        self._outside.check(event)
        self._outside.told.append(f"{event.order_id}:{event.sku}")


def shop(folder: Path, outside: Outside) -> EventoBundle:
    return EventoBundle(
        "shop",
        components=[OrderAggregate, ItemProjector, ItemSaga, ItemObserver],
        server=f"embedded:{folder / 'shop.db'}",
        injector={Outside: outside},
    )


async def fill(bundle: EventoBundle) -> None:
    """Two orders; the second event of the first one is the poison."""
    for order in ("ORD_1", "ORD_2"):
        await bundle.commands.send(OrderPlaceCommand(order, "ann"))
    for sku in ("tea", "poison", "milk"):
        for order in ("ORD_1", "ORD_2"):
            if (order, sku) != ("ORD_2", "poison"):
                await bundle.commands.send(ItemAddCommand(order, sku))


async def saga_states(folder: Path) -> dict[str, list[str]]:
    consumer = ConsumerId("shop", "ItemSaga", 1, "*")
    async with SqlConsumerStateStore(f"sqlite+aiosqlite:///{folder / 'shop.db-consumers'}") as store:
        states = [msgspec.json.decode(saga.state, type=ItemState) for saga in await store.sagas(consumer)]
    return {str(state.get_association("order_id")): state.skus for state in states}


@pytest.mark.timeout(120)
async def test_all_three_go_on_and_come_to_what_a_clean_run_gives(tmp_path: Path) -> None:
    undisturbed, folder = Outside(None), tmp_path / "clean"
    async with shop(folder, undisturbed) as bundle:
        await fill(bundle)
        await bundle.consumers_caught_up(30)
    clean_states = await saga_states(folder)

    outside, folder = Outside("poison"), tmp_path / "poisoned"
    async with shop(folder, outside) as bundle:
        await fill(bundle)
        await bundle.consumers_caught_up(60)  # three retries, 1, 2 and 4 s after each other
        for role in ROLES:
            status = await bundle.consumers.show(role)
            assert (status.state, status.lag_events) == (ConsumerState.RUNNING, 0)
            waits = role != "ItemObserver"  # what has no order waits for nobody
            assert (status.dead, status.waiting) == (1, int(waits))
            dead, *waiting = await bundle.consumers.dead(role)
            assert (dead.event_name, dead.error_type, dead.error_message, dead.attempts) == (
                "ItemAddedEvent",
                "ValueError",
                "cannot work with poison",
                4,
            )
            assert len(waiting) == int(waits)
        assert outside.rows == {"ORD_1": ["tea"], "ORD_2": ["tea", "milk"]}
        assert sorted(outside.told) == ["ORD_1:milk", "ORD_1:tea", "ORD_2:milk", "ORD_2:tea"]

        outside.poison = None
        for role in ROLES:
            await bundle.consumers.retry(role, all=True)
        await bundle.consumers_caught_up(30)
        assert [(await bundle.consumers.show(role)).dead for role in ROLES] == [0, 0, 0]
    assert outside.rows == undisturbed.rows
    assert sorted(outside.told) == sorted(undisturbed.told)
    assert await saga_states(folder) == clean_states == outside.rows


async def test_a_stop_between_the_attempts_loses_nothing(tmp_path: Path) -> None:
    outside = Outside("poison")
    async with shop(tmp_path, outside) as bundle:
        await fill(bundle)

        async def all_retry() -> bool:
            return {(await bundle.consumers.show(role)).state for role in ROLES} == {ConsumerState.RETRYING}

        await eventually(all_retry)
    outside.poison = None
    async with shop(tmp_path, outside) as bundle:
        await bundle.consumers_caught_up(30)
        assert [(await bundle.consumers.show(role)).dead for role in ROLES] == [0, 0, 0]
    assert outside.rows == {"ORD_1": ["tea", "poison", "milk"], "ORD_2": ["tea", "milk"]}
    assert set(outside.told) == {"ORD_1:tea", "ORD_1:poison", "ORD_1:milk", "ORD_2:tea", "ORD_2:milk"}
