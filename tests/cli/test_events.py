"""``evento events list``, ``tail`` and ``show``."""

from __future__ import annotations

import json
import select
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evento.state_store import Append, NewEvent

KEYS = [
    "position",
    "context",
    "aggregate_id",
    "version",
    "name",
    "schema_version",
    "kind",
    "payload",
    "metadata",
    "event_id",
    "command_id",
    "correlation_id",
    "causation_id",
    "timestamp",
    "deleted_at",
]


@pytest.fixture
def listed(cli: Any, shop: Path) -> Callable[..., list[str]]:
    """The positions that ``events list`` prints."""

    def run(*options: str) -> list[str]:
        result = cli("events", "list", "--json", "--store", f"sqlite:{shop}", *options)
        assert (result.code, result.err) == (0, "")
        return [event["position"] for event in result.objects]

    return run


def test_json_has_exactly_the_keys_and_formats_of_the_contract(
    cli: Any, tmp_path: Path, fill: Any, event: Callable[..., NewEvent]
) -> None:
    path = tmp_path / "shop.db"
    stored = event(payload=b'{"total":12.50,"big":123456789012345678901,"deep":{"z":1,"a":[]}}')
    nobodys = event(kind="service", aggregate_id=None, causation_id=None, schema_version=3)
    fill(path, [Append(stored), Append(nobodys)])
    result = cli("events", "list", "--json", "--store", f"sqlite:{path}")
    first, second = result.objects
    assert list(first) == list(second) == KEYS
    assert first == {
        "position": "1",
        "context": "default",
        "aggregate_id": "ORD_1",
        "version": 1,
        "name": "OrderPlacedEvent",
        "schema_version": 1,
        "kind": "domain",
        "payload": {"total": 12.5, "big": 123456789012345678901, "deep": {"z": 1, "a": []}},
        "metadata": {"user": "ann"},
        "event_id": stored.event_id,
        "command_id": stored.command_id,
        "correlation_id": stored.correlation_id,
        "causation_id": stored.causation_id,
        "timestamp": "2026-01-01T00:00:00.000000Z",
        "deleted_at": None,
    }
    assert (second["aggregate_id"], second["version"], second["causation_id"]) == (None, None, None)
    # Numbers and the order of keys are as they were written.
    assert '"payload":{"total":12.50,"big":123456789012345678901,"deep":{"z":1,"a":[]}}' in result.out


def test_a_payload_with_line_breaks_is_still_one_line(
    cli: Any, tmp_path: Path, fill: Any, event: Callable[..., NewEvent]
) -> None:
    path = tmp_path / "shop.db"
    fill(path, [Append(event(payload=b'{\r\n "text": "a\\nb"\n}'))])
    result = cli("events", "list", "--json", "--store", f"sqlite:{path}")
    assert result.out.count("\n") == 1
    assert result.objects[0]["payload"] == {"text": "a\nb"}


def test_events_are_listed_in_their_order(listed: Any) -> None:
    assert listed() == ["1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize(
    ("options", "positions"),
    [
        (["--after", "4"], "56"),
        (["--after", "6"], ""),
        (["--after", "99"], ""),
        (["--limit", "2"], "12"),
        (["--after", "1", "--limit", "2"], "23"),
        (["--name", "OrderPaidEvent"], "36"),
        (["--name", "orderpaidevent"], ""),
        (["--aggregate", "ORD_2"], "26"),
        (["--aggregate", "ORD_3"], ""),
        (["--context", "eu"], "26"),
        (["--context", "eu", "--name", "OrderPaidEvent"], "6"),
        (["--from", "2026-01-02"], "23456"),
        (["--from", "2026-01-03T00:00:00.000001Z"], "456"),
        (["--from", "2026-01-03T00:00:00.000002Z"], "56"),
        (["--to", "2026-01-02"], "1"),
        (["--to", "2026-01-02T01:00:00+01:00"], "1"),
        (["--to", "2026-01-03T00:00:00.000002Z"], "1234"),
        (["--from", "2026-01-02", "--to", "2026-01-04", "--limit", "2"], "23"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value or "none",
)
def test_conditions(listed: Any, options: list[str], positions: str) -> None:
    assert listed(*options) == list(positions)


def test_a_hundred_events_by_default_and_any_number_on_request(
    cli: Any, tmp_path: Path, fill: Any, event: Callable[..., NewEvent]
) -> None:
    path = tmp_path / "shop.db"
    fill(path, [Append(event(aggregate_id=None, kind="service")) for _ in range(1203)])

    def positions(*options: str) -> list[int]:
        result = cli("events", "list", "--json", "--store", f"sqlite:{path}", *options)
        return [int(found["position"]) for found in result.objects]

    assert positions() == list(range(1, 101))
    assert positions("--limit", "1001") == list(range(1, 1002))
    assert positions("--limit", "5000", "--after", "3") == list(range(4, 1204))


def test_large_events_are_all_listed(cli: Any, tmp_path: Path, fill: Any, event: Callable[..., NewEvent]) -> None:
    """A few of them are as much as one look at the store gives."""
    path = tmp_path / "shop.db"
    fill(path, [Append(event(payload=b'{"text":"%s"}' % (b"x" * 800_000))) for _ in range(12)])
    result = cli("events", "list", "--json", "--store", f"sqlite:{path}", "--limit", "11")
    assert [int(found["position"]) for found in result.objects] == list(range(1, 12))


def test_the_table_has_a_heading_and_a_line_for_each_event(cli: Any, shop: Path) -> None:
    result = cli("events", "list", "--store", f"sqlite:{shop}")
    heading, *lines = result.out.splitlines()
    assert heading.split() == ["POSITION", "TIME", "CONTEXT", "AGGREGATE", "VERSION", "NAME", "PAYLOAD"]
    assert [line.split()[:6] for line in lines[:2]] == [
        ["1", "2026-01-01T00:00:00.000000Z", "default", "ORD_1", "1", "OrderPlacedEvent"],
        ["2", "2026-01-02T00:00:00.000000Z", "eu", "ORD_2", "1", "OrderPlacedEvent"],
    ]
    assert lines[3].split()[3:] == ["-", "-", "ParcelSentEvent", "{}"]
    assert len({line.index("{") for line in lines}) == 1


@pytest.mark.parametrize("until", ["2026-01-02", "2026-01-03"])
def test_a_time_range_that_holds_nothing_is_wrong_use(cli: Any, shop: Path, until: str) -> None:
    result = cli("events", "list", "--from", "2026-01-03", "--to", until, "--store", f"sqlite:{shop}")
    assert (result.code, result.out) == (2, "")
    assert "--from must be earlier than --to" in result.err


def test_nothing_found_is_told_to_people_only(cli: Any, shop: Path) -> None:
    words = ["events", "list", "--after", "6", "--store", f"sqlite:{shop}"]
    people, program = cli(*words), cli(*words, "--json")
    assert (people.code, people.out, people.err) == (0, "", "no events match\n")
    assert (program.code, program.out, program.err) == (0, "", "")


def test_what_was_stored_cannot_steer_the_terminal(
    cli: Any, tmp_path: Path, fill: Any, event: Callable[..., NewEvent]
) -> None:
    path = tmp_path / "shop.db"
    fill(path, [Append(event(aggregate_id="\x1b[2J\n", payload='{"text":"\x9b2J"}'.encode()))])
    for words in (["list"], ["show", "1"]):
        result = cli("events", *words, "--store", f"sqlite:{path}")
        assert result.code == 0
        assert "\\x1b[2J\\n" in result.out
        assert "\x1b" not in result.out
        assert "\x9b" not in result.out


def test_show_prints_all_that_is_known(cli: Any, shop: Path) -> None:
    stored = cli("events", "list", "--json", "--limit", "1", "--store", f"sqlite:{shop}").objects[0]
    result = cli("events", "show", "1", "--store", f"sqlite:{shop}")
    assert result.code == 0
    for key in ("name", "context", "aggregate_id", "event_id", "command_id", "correlation_id", "timestamp"):
        assert stored[key] in result.out
    assert '  {\n    "order_id": "ORD_1",\n    "total": 12.50\n  }\n' in result.out


def test_show_as_json_is_the_line_of_the_list(cli: Any, shop: Path) -> None:
    listed = cli("events", "list", "--json", "--after", "3", "--limit", "1", "--store", f"sqlite:{shop}")
    shown = cli("events", "show", "4", "--json", "--store", f"sqlite:{shop}")
    assert shown == listed


def test_show_by_the_id_of_the_command(cli: Any, shop: Path) -> None:
    stored = cli("events", "show", "2", "--json", "--store", f"sqlite:{shop}")
    found = cli("events", "show", "--command", stored.objects[0]["command_id"], "--json", "--store", f"sqlite:{shop}")
    assert found == stored
    unknown = cli("events", "show", "--command", "nobody", "--store", f"sqlite:{shop}")
    assert (unknown.code, unknown.err) == (1, "evento: the store knows no command nobody\n")


@pytest.mark.parametrize("position", ["7", str(2**63 - 1)])
def test_show_says_which_positions_there_are(cli: Any, shop: Path, position: str) -> None:
    result = cli("events", "show", position, "--store", f"sqlite:{shop}")
    assert (result.code, result.out) == (1, "")
    assert result.err == f"evento: there is no event at position {position}: the store has the positions 1 to 6\n"


def test_show_tells_purged_events_from_those_that_never_were(cli: Any, shop: Path) -> None:
    assert cli("store", "purge", "--older-than", "0s", "--yes", "--store", f"sqlite:{shop}").code == 0
    result = cli("events", "show", "1", "--store", f"sqlite:{shop}")
    assert (result.code, result.err) == (1, "evento: the event at position 1 was purged\n")
    deleting = cli("events", "show", "5", "--json", "--store", f"sqlite:{shop}")
    assert deleting.objects[0]["name"] == "OrderDeletedEvent"


def test_deleted_at_is_a_time(cli: Any, shop: Path) -> None:
    deleted_at = cli("events", "show", "5", "--json", "--store", f"sqlite:{shop}").objects[0]["deleted_at"]
    assert deleted_at is None or deleted_at.endswith("Z")


def test_tail_sees_what_others_store_from_then_on_and_ends_with_ctrl_c(
    shop: Path, fill: Any, event: Callable[..., NewEvent], process: Any
) -> None:
    tail = process("events", "tail", "--after", "5", "--json", "--store", f"sqlite:{shop}")
    assert json.loads(tail.stdout.readline())["position"] == "6"
    for position in range(7, 10):
        fill(shop, [Append(event(aggregate_id="ORD_9"))])
        found = json.loads(tail.stdout.readline())
        assert (found["position"], found["aggregate_id"]) == (str(position), "ORD_9")
        assert list(found) == KEYS
    tail.send_signal(signal.SIGINT)
    assert tail.wait(30) == 0
    assert (tail.stdout.read(), tail.stderr.read()) == ("", "")


def test_tail_starts_at_the_head_and_prints_only_what_matches(
    shop: Path, fill: Any, event: Callable[..., NewEvent], process: Any
) -> None:
    tail = process("events", "tail", "--name", "OrderPaidEvent", "--json", "--store", f"sqlite:{shop}")
    # When it has read the head is not told: events are stored until one arrives.
    while tail.poll() is None:
        fill(shop, [Append(event(aggregate_id="ORD_9")), Append(event(aggregate_id="ORD_9", name="OrderPaidEvent"))])
        if _readable(tail.stdout):
            break
    found = json.loads(tail.stdout.readline())
    assert int(found["position"]) > 6
    assert found["name"] == "OrderPaidEvent"


def test_tail_ends_when_its_reader_has_left_although_nothing_happens(shop: Path, process: Any) -> None:
    tail = process("events", "tail", "--after", "5", "--store", f"sqlite:{shop}")
    tail.stdout.readline()
    tail.stdout.close()
    assert tail.wait(30) == 0
    assert tail.stderr.read() == ""


def _readable(stream: Any) -> bool:
    return bool(select.select([stream], [], [], 0.2)[0])
