"""Stored events that do not fit the classes of today: a clear error each, nothing lost, and a way on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from jars import (
    BareJar,
    ColouredJar,
    ColourProjector,
    JarColourCommand,
    JarColouredEvent,
    JarCountCommand,
    JarLabelCommand,
    JarMakeCommand,
    LabelledJar,
    LabelProjector,
    NumberedJar,
    NumberProjector,
    Seen,
)
from shop import ItemAddCommand, Ledger, OrderPlaceCommand, OrderSearchQuery, PaymentCaptureCommand
from work import inside

from evento import EventoBundle, PayloadError

MakeBundle = Callable[..., EventoBundle]


def jars(make_bundle: MakeBundle, *components: type, seen: Seen | None = None) -> EventoBundle:
    """Return a bundle of jars on the file of the test."""
    return make_bundle(components=components, injector={Seen: seen or Seen()})


@pytest.fixture
async def labelled(make_bundle: MakeBundle) -> None:
    """Two jars, one of them with labels."""
    async with jars(make_bundle, LabelledJar) as bundle:
        await bundle.commands.send(JarMakeCommand("J_1"), metadata={"user": "ann"})
        await bundle.commands.send(JarLabelCommand("J_1", "jam"))
        await bundle.commands.send(JarMakeCommand("J_2"))
        await bundle.commands.send(JarLabelCommand("J_1", "old jam"))


async def test_a_payload_that_no_longer_fits_is_an_error_for_its_aggregate_only(
    labelled: None, make_bundle: MakeBundle
) -> None:
    async with jars(make_bundle, NumberedJar) as bundle:
        with pytest.raises(PayloadError, match=r"event 2 of 'J_1' cannot be read.*\$\.label.*give new ones a default"):
            await bundle.commands.send(JarCountCommand("J_1"))
        assert (await bundle.commands.send_message(JarCountCommand("J_2"))).version == 2
    async with jars(make_bundle, LabelledJar) as bundle:
        assert (await bundle.commands.send_message(JarCountCommand("J_1"))).version == 4


async def test_an_event_whose_class_was_removed_is_an_error_for_its_aggregate_only(
    labelled: None, make_bundle: MakeBundle
) -> None:
    async with jars(make_bundle, BareJar) as bundle:
        with pytest.raises(PayloadError, match=r"event 2 of 'J_1'.*'JarLabelledEvent'.*keep the class"):
            await bundle.commands.send(JarCountCommand("J_1"))
        assert (await bundle.commands.send_message(JarCountCommand("J_2"))).version == 2
    async with jars(make_bundle, LabelledJar) as bundle:
        assert (await bundle.commands.send_message(JarCountCommand("J_1"))).version == 4


async def test_an_event_that_is_known_but_not_handled_changes_no_state(labelled: None, make_bundle: MakeBundle) -> None:
    async with jars(make_bundle, BareJar, LabelProjector) as bundle:
        assert (await bundle.commands.send_message(JarCountCommand("J_1"))).version == 4


async def test_a_payload_that_no_longer_fits_is_a_dead_event_for_the_projector(
    labelled: None, make_bundle: MakeBundle
) -> None:
    seen = Seen()
    async with jars(make_bundle, NumberedJar, NumberProjector, seen=seen) as bundle:
        await bundle.consumers_caught_up()
        (status,) = inside(bundle).consumers.statuses()
        assert (status.dead, status.waiting, status.position) == (1, 1, 4)
    assert seen.events == [("J_1", {"user": "ann"}), ("J_2", {})]
    seen = Seen()
    async with jars(make_bundle, LabelledJar, LabelProjector, seen=seen) as bundle:  # nothing is lost
        await bundle.consumers_caught_up()
    assert seen.events == [("J_1", {"user": "ann"}), ("J_1", "jam"), ("J_2", {}), ("J_1", "old jam")]


async def test_versions_that_differ_in_fields_read_each_others_events(labelled: None, make_bundle: MakeBundle) -> None:
    seen = Seen()
    async with jars(make_bundle, ColouredJar, ColourProjector, seen=seen) as bundle:
        event = await bundle.commands.send(JarColourCommand("J_1", "red"))
        assert event == JarColouredEvent("J_1", "clear old jam", "red")
        await bundle.consumers_caught_up()
    assert seen.events[1] == ("J_1", "jam", "clear")
    assert seen.events[-1] == ("J_1", "clear old jam", "red")
    seen = Seen()
    async with jars(make_bundle, LabelledJar, LabelProjector, seen=seen) as bundle:
        await bundle.commands.send(JarLabelCommand("J_1", "more"))
        await bundle.consumers_caught_up()
    assert seen.events[-2:] == [("J_1", "clear old jam"), ("J_1", "more")]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("payload", "{"),
        ("payload", "[]"),
        ("payload", '{"jar_id": "J_1"}'),
        ("payload", '{"jar_id": "J_1", "label": null}'),
        ("payload", "🤷"),
        ("metadata", "nonsense"),
    ],
)
async def test_a_row_that_was_damaged_by_hand_stops_nothing_else(
    labelled: None, make_bundle: MakeBundle, tmp_path: Path, column: str, value: str
) -> None:
    seen = Seen()
    position = 1 if column == "metadata" else 2
    old = _update(tmp_path / "shop.db", column, value, position)
    async with jars(make_bundle, LabelledJar, LabelProjector, seen=seen) as bundle:
        if column == "payload":
            with pytest.raises(PayloadError, match="event 2 of 'J_1' cannot be read"):
                await bundle.commands.send(JarCountCommand("J_1"))
        await bundle.commands.send(JarCountCommand("J_2"))
        await bundle.consumers_caught_up()
        (status,) = inside(bundle).consumers.statuses()
        assert (status.dead, status.position) == (1, 5)
        report = await inside(bundle).store.verify()
        assert report.ok == value.startswith('{"')  # the store knows JSON, but no classes
    assert ("J_2", {}) in seen.events
    _update(tmp_path / "shop.db", column, old, position)
    async with jars(make_bundle, LabelledJar, LabelProjector) as bundle:
        assert (await bundle.commands.send_message(JarCountCommand("J_1"))).version == 4
        assert (await inside(bundle).store.verify()).ok


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "", "x" * 1000])
async def test_ids_that_no_store_can_keep_are_refused_before_anything_is_done(
    make_bundle: MakeBundle, text: str
) -> None:
    ledger = Ledger()
    async with make_bundle(ledger=ledger) as bundle:
        with pytest.raises(PayloadError, match="message_id must be"):
            await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"), message_id=text)
        with pytest.raises(PayloadError, match="message_id must be"):
            await bundle.commands.send(PaymentCaptureCommand("ORD_1", 1), message_id=text)
        await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
        with pytest.raises(PayloadError):
            await bundle.commands.send(ItemAddCommand("ORD_1", "tea", lock=text))
        assert await inside(bundle).store.head() == 1
    assert ledger.calls == []


def _update(path: Path, column: str, value: Any, position: int) -> Any:
    """Change a stored row behind the store's back; return what was there."""
    with closing(sqlite3.connect(path)) as database, database:
        [old] = database.execute(f"SELECT {column} FROM events WHERE position = ?", (position,)).fetchone()
        database.execute(f"UPDATE events SET {column} = ? WHERE position = ?", (value, position))
    return old


async def test_the_limit_of_payloads_is_a_setting(make_bundle: MakeBundle) -> None:
    async with make_bundle(max_payload_bytes=200) as bundle:
        await bundle.commands.send(OrderPlaceCommand("ORD_1", "ann"))
        with pytest.raises(PayloadError, match="OrderPlaceCommand") as caught:
            await bundle.commands.send(OrderPlaceCommand("ORD_2", "x" * 200))
        assert caught.value.definite
        with pytest.raises(PayloadError, match="OrderSearchQuery"):
            await bundle.queries.query(OrderSearchQuery("x" * 200))
