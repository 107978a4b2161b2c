"""Whatever bytes come to a server or from one: calls, answers and notices are read, or refused with PayloadError."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evento.errors import ErrorData, EventoError, PayloadError, error_to_data
from evento.gateway.nats import Delivery
from evento.gateway.nats.calls import Answer, Operation, encode
from evento.gateway.nats.registry import REGISTRY
from evento.gateway.nats.subjects import Subjects
from evento.messages.registration import BundleDescription, Register, Session
from evento.server.store.appending import Appending
from evento.server.store.counters import StoreCounters
from evento.server.store.jobs import Job
from evento.state_store import EventFilter, Lease, Snapshot
from evento.state_store.remote import wire
from evento.state_store.remote.head import LatchedHead
from evento.state_store.sqlite import SqliteStateStore
from evento.testing.conformance.state_store.support import append

many = settings(max_examples=int(os.environ.get("EVENTO_FUZZ_EXAMPLES", "150")), deadline=None)
few = settings(max_examples=int(os.environ.get("EVENTO_FUZZ_EXAMPLES", "150")) // 3, deadline=None)

BEGIN = (wire.FORMAT, 5.0, ("store", 1))
OPERATIONS: dict[str, Operation] = {**wire.OPERATIONS, **REGISTRY, "job": wire.JOB}
CALLS: dict[str, msgspec.Struct] = {
    "append": wire.AppendCall(*BEGIN, [append(), append("ORD_2")]),
    "story": wire.StoryCall(*BEGIN, "ORD_1", "ORD_1", "f", 3, 1000),
    "fetch": wire.FetchCall(*BEGIN, 0, ("*",), ("A",), 10, 1000),
    "snapshot": wire.SnapshotCall(*BEGIN, Snapshot("ORD_1", 1, "f", b"{}")),
    "lookup": wire.LookupCall(*BEGIN, "c1"),
    "reject": wire.RejectCall(*BEGIN, "c1", ErrorData("CommandRejected", "Full", "full", {"size": 5})),
    "lock": wire.LockCall(*BEGIN, "l", "o", 5.0),
    "renew": wire.RenewCall(*BEGIN, Lease("l", 1), 5.0),
    "search": wire.SearchCall(*BEGIN, EventFilter(name="A"), 0, None, 10, True, 1000),
    "purge": wire.PurgeCall(*BEGIN, 5, True),
    "job": wire.JobCall(*BEGIN, True),
    "register": Register(BundleDescription("orders", commands=("A",)), "i1"),
    "heartbeat": Session("orders", "i1", 1),
}
NOTICE = encode(wire.HeadNotice(wire.FORMAT, "s", 7))

any_value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=8,
)


@st.composite
def mutated(draw: st.DrawFn, sample: bytes) -> bytes:
    """Draw bytes near a valid message: some changed, some cut out, some put in."""
    data = bytearray(sample)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


@st.composite
def altered(draw: st.DrawFn, sample: bytes) -> bytes:
    """Draw a message in which one or two values, wherever they are, are others."""
    value = msgspec.msgpack.decode(sample)
    for _ in range(draw(st.integers(1, 2))):
        place: Any = value
        while isinstance(place, list | dict) and place:
            keys = list(range(len(place)) if isinstance(place, list) else place)
            key = draw(st.sampled_from(keys))
            if not (isinstance(place[key], list | dict) and place[key]) or draw(st.booleans()):
                place[key] = draw(any_value)
                break
            place = place[key]
    return msgspec.msgpack.encode(value)


def near(sample: bytes) -> st.SearchStrategy[bytes]:
    return mutated(sample) | altered(sample) | st.binary(max_size=60) | any_value.map(msgspec.msgpack.encode)


@many
@given(st.data())
def test_calls(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(CALLS)))
    operation = OPERATIONS[name]
    try:
        call = operation.decode_call(data.draw(near(encode(CALLS[name]))))
    except PayloadError as error:
        error_to_data(error)
    else:
        encode(call)
        if isinstance(call, wire.Call):
            assert call.remaining == call.remaining


@many
@given(st.data())
def test_answers(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(OPERATIONS)))
    answers: list[msgspec.Struct] = [
        Answer(None, [wire.Stored(1, 1, 1), wire.Failed(ErrorData("Overloaded", "Overloaded", "no"))]),
        Answer(None, wire.Identity("s", 1, 5)),
        Answer[None](ErrorData("Overloaded", "Overloaded", "no")),
    ]
    sample = encode(data.draw(st.sampled_from(answers)))
    try:
        OPERATIONS[name].decode_answer(data.draw(near(sample)))
    except PayloadError as error:
        error_to_data(error)


class Asked(Delivery):
    """A message whose answer is kept."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.answers: list[bytes] = []

    def respond(self, data: bytes) -> None:
        self.answers.append(data)


@many
@given(near(NOTICE))
def test_notices(data: bytes) -> None:
    async def follow() -> None:
        head = LatchedHead()
        head.notice(Asked(data))
        head.of("s", 3)
        head.notice(Asked(data))
        assert head.position >= 3

    asyncio.run(follow())


@many
@given(near(encode(CALLS["job"])))
def test_questions_about_jobs(data: bytes) -> None:
    async def ask() -> None:
        job = Job(lambda progress: asyncio.sleep(0))  # type: ignore[arg-type,return-value]
        asked = Asked(data)
        job.asked(asked)
        assert len(asked.answers) == 1
        wire.JOB.decode_answer(asked.answers[0])

    asyncio.run(ask())


@few
@given(altered(encode(wire.AppendCall(wire.FORMAT, 5.0, None, [append(), append("ORD_2"), append("ORD_3")]))))
def test_appends_of_any_values_are_each_answered_and_leave_the_store_whole(data: bytes) -> None:
    async def serve() -> None:
        async with SqliteStateStore(None) as store:
            appending = Appending(
                store, StoreCounters(), stored=lambda position: None, max_answer=1_000_000, payload_limit=1_000_000
            )
            asked = Asked(data)
            appending.serve(asked)
            await asyncio.wait_for(appending.drained(), 30)
            answer = wire.OPERATIONS["append"].decode_answer(asked.answers[0])
            stored = sum(isinstance(outcome, wire.Stored) for outcome in answer.value or ())
            assert await store.head() == stored
            page = await store.fetch(0)
            assert len(page.events) == stored
            for event in page.events:
                encode(event)
            report = await store.verify()
            assert report.ok, report.problems
            try:
                await store.story("ORD_1")
            except EventoError as error:
                pytest.fail(f"{error!r}")

    asyncio.run(serve())


@many
@given(st.text(max_size=40) | st.binary(max_size=20).map(lambda data: data.decode("latin-1")))
def test_subjects(text: str) -> None:
    subjects = Subjects("test")
    for subject in (text, f"{subjects.prefix}.inbox.{text}", f"{subjects.prefix}.registry.{text}"):
        subjects.inbox_owner(subject)
        subjects.registering(subject)
