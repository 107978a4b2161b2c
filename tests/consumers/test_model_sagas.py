"""Random lives of a saga against a plain model: states, associations, what waits, and commands that are sent once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lives import EXAMPLES, Life, Script, Step, live, steps_of, things
from streams import TICK

from evento import (
    CommandGateway,
    DomainEvent,
    EventMessage,
    Saga,
    SagaState,
    ServiceCommand,
    ServiceEvent,
    saga_event_handler,
)
from evento.consumers import ConsumerId, SqlConsumerStateStore
from evento.gateway import InProcessBus, RequestSender
from evento.messages import Event, Reply, Request
from evento.state_store import StateStore

TRIPS = ConsumerId("test_bundle", "TripSaga", 1, "*")
HOTELS = {"A": 1, "B": 2, "C": 3}
COMMANDS_EACH = 2

Item = tuple[str, str]
"""What happens, and to which trip."""
items: st.SearchStrategy[Item] = st.tuples(st.sampled_from(["book", "book", "take", "confirm", "leave", "end"]), things)
LIVES = steps_of(items)


class TripBookedEvent(DomainEvent, domain="Trip"):
    thing_id: str


class HotelTakenEvent(DomainEvent, domain="Trip"):
    thing_id: str
    hotel: int


class HotelConfirmedEvent(ServiceEvent, domain="Hotel"):
    hotel: int


class HotelLeftEvent(DomainEvent, domain="Trip"):
    thing_id: str


class TripEndedEvent(DomainEvent, domain="Trip"):
    thing_id: str


class StepTellCommand(ServiceCommand[None]):
    position: int


class TripState(SagaState):
    steps: list[int] = []


class TripSaga(Saga[TripState], version=1):
    """Tells of each step by two commands, then does what the script says, and notes the step in its state."""

    def __init__(self, script: Script) -> None:
        self._script = script

    @saga_event_handler(init=True, association_property="thing_id", retry=1, retry_delay=TICK)
    async def on_booked(
        self, event: TripBookedEvent, state: TripState | None, message: EventMessage[Any], commands: CommandGateway
    ) -> TripState:
        state = state or TripState()
        state.set_association("thing_id", event.thing_id)
        await self._step(message, state, commands)
        return state

    @saga_event_handler(association_property="thing_id", retry=1, retry_delay=TICK)
    async def on_taken(
        self, event: HotelTakenEvent, state: TripState, message: EventMessage[Any], commands: CommandGateway
    ) -> None:
        state.set_association("hotel", event.hotel)
        await self._step(message, state, commands)

    @saga_event_handler(association_property="hotel", retry=1, retry_delay=TICK)
    async def on_confirmed(
        self, event: HotelConfirmedEvent, state: TripState, message: EventMessage[Any], commands: CommandGateway
    ) -> None:
        await self._step(message, state, commands)

    @saga_event_handler(association_property="thing_id", retry=1, retry_delay=TICK)
    async def on_left(
        self, event: HotelLeftEvent, state: TripState, message: EventMessage[Any], commands: CommandGateway
    ) -> None:
        state.unset_association("hotel")
        await self._step(message, state, commands)

    @saga_event_handler(association_property="thing_id", retry=1, retry_delay=TICK)
    async def on_ended(
        self, event: TripEndedEvent, state: TripState, message: EventMessage[Any], commands: CommandGateway
    ) -> None:
        await self._step(message, state, commands)
        state.end()

    async def _step(self, message: EventMessage[Any], state: TripState, commands: CommandGateway) -> None:
        for _ in range(COMMANDS_EACH):
            await commands.send(StepTellCommand(message.position))
        state.steps.append(message.position)
        await self._script.handle(message)


@dataclass
class Trip:
    """What the model knows of a saga."""

    steps: list[int] = field(default_factory=list)
    hotel: bool = False


class TripModel:
    """Sagas by their things, what is held back, and whose handlers have run."""

    def __init__(self) -> None:
        self.trips: dict[str, Trip] = {}
        self.held: dict[str, list[tuple[int, str]]] = defaultdict(list)
        self.ran: set[int] = set()

    def deliver(self, position: int, item: Item, poison: set[int]) -> None:
        what, thing = item
        known = what != "confirm" or self._is_found(item)  # otherwise nobody knows yet whose hotel that is
        waits = known and bool(self.held[thing])
        if waits or not self._handle(position, item, poison):
            self.held[thing].append((position, what))

    def retry(self, thing: str, poison: set[int]) -> None:
        held = self.held[thing]
        while held and self._handle(held[0][0], (held[0][1], thing), poison):
            del held[0]

    def discard(self, thing: str, poison: set[int]) -> int | None:
        if not self.held[thing]:
            return None
        position, _ = self.held[thing].pop(0)
        self.retry(thing, poison)
        return position

    def _is_found(self, item: Item) -> bool:
        what, thing = item
        trip = self.trips.get(thing)
        return trip is not None and (what != "confirm" or trip.hotel)

    def _handle(self, position: int, item: Item, poison: set[int]) -> bool:
        """Handle an event, or pass it over where it concerns no saga; False when it fails."""
        what, thing = item
        if what != "book" and not self._is_found(item):
            return True
        self.ran.add(position)
        if position in poison:
            return False
        trip = self.trips.setdefault(thing, Trip())
        trip.steps.append(position)
        match what:
            case "take":
                trip.hotel = True
            case "leave":
                trip.hotel = False
            case "end":
                del self.trips[thing]
        return True


class Told:
    """The service that is told of the steps: each message id takes effect once, as with all commands."""

    def __init__(self) -> None:
        self.effects: dict[str, int] = {}

    async def __call__(self, request: Request, deadline: float) -> Reply:
        position = msgspec.json.decode(request.payload)["position"]
        assert self.effects.setdefault(request.message_id, position) == position
        return Reply()


class SagaLife(Life):
    consumers = (TRIPS,)

    def __init__(self, events: StateStore, store: SqlConsumerStateStore) -> None:
        super().__init__(events, store)
        self.model = TripModel()
        self.told = Told()
        self._bus = InProcessBus()

    async def start(self) -> None:
        self._bus = InProcessBus()
        await self._bus.serve("command", "StepTellCommand", self.told)
        await super().start()

    def readers(self) -> Sequence[object]:
        return (TripSaga(self.scripts[TRIPS]),)

    def options(self) -> dict[str, Any]:
        return {"commands": CommandGateway(RequestSender(self._bus), event_classes=lambda _: None)}

    def thing_of(self, item: Item) -> str:
        return item[1]

    def event_of(self, item: Item) -> Event:
        what, thing = item
        match what:
            case "book":
                return TripBookedEvent(thing)
            case "take":
                return HotelTakenEvent(thing, HOTELS[thing])
            case "confirm":
                return HotelConfirmedEvent(HOTELS[thing])
            case "leave":
                return HotelLeftEvent(thing)
            case _:
                return TripEndedEvent(thing)

    def deliver(self, position: int, item: Item) -> None:
        self.model.deliver(position, item, self.poison)

    async def ask(self, what: str, thing: str) -> None:
        if what == "retry":
            for key in (f'thing_id="{thing}"', f"hotel={HOTELS[thing]}"):
                await self.group.administration.retry(TRIPS, key=key)
            self.model.retry(thing, self.poison)
        elif (position := self.model.discard(thing, self.poison)) is not None:
            await self.group.administration.discard(TRIPS, position)

    async def compare(self) -> None:
        held = defaultdict(list)
        for event in await self.store.dead_events(TRIPS, limit=1000):
            held[self.items[event.position][1]].append(event.position)
            assert event.waiting or event.error_type == "ValueError", event.traceback
        assert held == {thing: [one for one, _ in waits] for thing, waits in self.model.held.items() if waits}
        assert not self.repeated(TRIPS)
        await self._compare_states()
        counts: dict[int, int] = defaultdict(int)
        for position in self.told.effects.values():
            counts[position] += 1
        assert counts == dict.fromkeys(self.model.ran, COMMANDS_EACH)

    async def _compare_states(self) -> None:
        stored = [msgspec.json.decode(saga.state, type=TripState) for saga in await self.store.sagas(TRIPS)]
        states = {str(state.get_association("thing_id")): state.steps for state in stored}
        assert states == {thing: trip.steps for thing, trip in self.model.trips.items()}
        assert len(stored) == len(states)
        for thing, hotel in HOTELS.items():
            trip = self.model.trips.get(thing)
            for association, known in (
                (f'thing_id="{thing}"', trip is not None),
                (f"hotel={hotel}", trip is not None and trip.hotel),
            ):
                assert (await self.store.find_saga(TRIPS, association) is not None) == known


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LIVES)
@example(  # the key under which events wait is gone with a retry
    [
        ("add", [("book", "A"), ("take", "A")]),
        ("poison", [("confirm", "A")]),
        ("add", [("leave", "A")]),
        ("poison", [("book", "A")]),
        ("discard", "A"),
        ("add", [("take", "A")]),
    ]
)
def test_a_life(steps: list[Step]) -> None:
    live(SagaLife, steps)
