"""Payload classes: construction, equality, definitions, and the mistakes that are found when a class is made."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from decimal import Decimal
from types import ModuleType
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
import pytest

from evento import (
    AggregateId,
    DefinitionError,
    DomainCommand,
    DomainEvent,
    PayloadError,
    Query,
    ServiceCommand,
    ServiceEvent,
    View,
)
from evento.messages import PayloadKind, definition_of, json_schema, result_type_of, seal


class Line(msgspec.Struct):
    sku: str
    amount: int = 1


class PlaceCommand(DomainCommand["PlacedEvent"], domain="Order"):
    """Place an order.

    Or two.
    """

    order_id: AggregateId
    customer: str
    lines: list[Line] = []


class PlacedEvent(DomainEvent, domain="Order", name="order-placed", version=3):
    order_id: str


class CaptureCommand(ServiceCommand):
    order_id: str
    amount: Decimal

    @property
    def lock_id(self) -> str | None:
        return f"PAY_{self.order_id}"


class CapturedEvent(ServiceEvent):
    order_id: str


class OrderView(View):
    order_id: str


class FindQuery(Query[OrderView]):
    order_id: str


class SearchQuery(Query[list[OrderView]]):
    pass


class TestPayloads:
    def test_positional_and_keyword_construction(self) -> None:
        assert PlaceCommand("O_1", "ann", [Line("A")]) == PlaceCommand(
            order_id="O_1", customer="ann", lines=[Line("A")]
        )
        assert PlaceCommand("O_1", customer="ann").lines == []

    def test_framework_fields_are_keyword_only_with_defaults(self) -> None:
        command = PlaceCommand("O_1", "ann", invalidate_aggregate_caches=True)
        assert (command.invalidate_aggregate_caches, command.invalidate_aggregate_snapshot) == (True, False)
        assert (command.force_telemetry, FindQuery("O_1").force_telemetry) == (False, False)
        event = PlacedEvent("O_1", context="eu", force_telemetry=True)
        assert (event.context, PlacedEvent("O_1").context, event.force_telemetry) == ("eu", "default", True)
        with pytest.raises(TypeError):
            PlacedEvent("O_1", "eu")  # type: ignore[call-arg]

    def test_framework_fields_are_part_of_the_json(self) -> None:
        data, _ = seal(PlacedEvent("O_1", context="eu"))
        assert msgspec.json.decode(data) == {"order_id": "O_1", "context": "eu", "force_telemetry": False}
        data, _ = seal(PlaceCommand("O_1", "ann"))
        assert {"invalidate_aggregate_caches", "invalidate_aggregate_snapshot"} < msgspec.json.decode(data).keys()

    def test_they_are_immutable_and_hashable_by_value(self) -> None:
        event = PlacedEvent("O_1")
        with pytest.raises(AttributeError):
            event.order_id = "O_2"  # type: ignore[misc]
        assert event == PlacedEvent("O_1")
        assert event != PlacedEvent("O_1", context="eu")
        assert event != PlacedEvent("O_2")
        assert event != CapturedEvent("O_1")  # type: ignore[comparison-overlap]
        assert hash(event) == hash(PlacedEvent("O_1"))

    def test_defaults_are_not_shared(self) -> None:
        one = PlaceCommand("O_1", "ann")
        one.lines.append(Line("A"))
        assert PlaceCommand("O_1", "ann").lines == []

    def test_aggregate_id_and_lock_id(self) -> None:
        assert PlaceCommand("O_1", "ann").aggregate_id == "O_1"
        assert PlaceCommand("O_1", "ann").lock_id == "O_1"
        assert CaptureCommand("O_1", Decimal(1)).lock_id == "PAY_O_1"

        class PlainCommand(ServiceCommand):
            pass

        class ByProperty(DomainCommand):
            number: int

            @property
            def aggregate_id(self) -> str:
                return f"N_{self.number}"

        class ByName(DomainCommand):
            aggregate_id: AggregateId

        assert PlainCommand().lock_id is None
        assert (ByProperty(7).aggregate_id, ByProperty(7).lock_id) == ("N_7", "N_7")
        assert (ByName("A_1").aggregate_id, ByName("A_1").lock_id) == ("A_1", "A_1")


class TestDefinitions:
    def test_what_a_class_is(self) -> None:
        definition = definition_of(PlaceCommand)
        assert (definition.cls, definition.name, definition.kind) == (
            PlaceCommand,
            "PlaceCommand",
            PayloadKind.DOMAIN_COMMAND,
        )
        assert (definition.version, definition.domain, definition.abstract) == (1, "Order", False)
        assert definition.description == "Place an order.\n\nOr two."
        assert definition.aggregate_field == "order_id"
        assert definition.source.file == __file__
        assert definition.source.line > 0
        assert str(definition.source) == f"{__file__}:{definition.source.line}"

    def test_class_keywords(self) -> None:
        definition = definition_of(PlacedEvent)
        assert (definition.name, definition.version, definition.domain) == ("order-placed", 3, "Order")

    @pytest.mark.parametrize(
        ("cls", "kind"),
        [
            (PlaceCommand, PayloadKind.DOMAIN_COMMAND),
            (CaptureCommand, PayloadKind.SERVICE_COMMAND),
            (PlacedEvent, PayloadKind.DOMAIN_EVENT),
            (CapturedEvent, PayloadKind.SERVICE_EVENT),
            (FindQuery, PayloadKind.QUERY),
            (OrderView, PayloadKind.VIEW),
        ],
    )
    def test_kinds(self, cls: type, kind: PayloadKind) -> None:
        assert definition_of(cls).kind is kind

    def test_the_kind_holds_through_intermediate_bases(self) -> None:
        class OrderEvent(DomainEvent, domain="Order", abstract=True):
            order_id: str

        class ShippedEvent(OrderEvent):
            by: str

        definition = definition_of(ShippedEvent)
        assert (definition.kind, definition.domain, definition.abstract) == (PayloadKind.DOMAIN_EVENT, "Order", False)
        assert definition_of(OrderEvent).abstract
        assert ShippedEvent("O_1", "ship") == ShippedEvent(order_id="O_1", by="ship")

    def test_aggregate_ids_are_inherited(self) -> None:
        class OrderCommand(DomainCommand, abstract=True):
            order_id: AggregateId

        class Cancel(OrderCommand):
            reason: str = ""

        assert definition_of(Cancel).aggregate_field == "order_id"
        assert Cancel("O_1").aggregate_id == "O_1"

    def test_what_is_no_payload_has_none(self) -> None:
        with pytest.raises(DefinitionError, match="Line is not a payload: derive it from"):
            definition_of(Line)

    def test_local_and_nested_classes_resolve(self) -> None:
        @dataclass
        class Local:
            number: int

        class LocalEvent(DomainEvent):
            class Inner(msgspec.Struct):
                text: str

            local: Local
            inner: Inner
            self_reference: LocalEvent | None = None

        event = LocalEvent(Local(1), LocalEvent.Inner("a"), LocalEvent(Local(2), LocalEvent.Inner("b")))
        assert seal(event)[1] == event

    def test_class_variables_are_no_fields(self) -> None:
        class WithConstant(ServiceEvent):
            limit: ClassVar[int] = 5
            size: int

        assert WithConstant.limit == 5
        assert seal(WithConstant(1))[1] == WithConstant(1)


V = TypeVar("V")
T = TypeVar("T")
E = TypeVar("E", bound=DomainEvent)


class Paged(Query[list[V]], Generic[V], abstract=True):
    page: int = 0


class Mapped(Paged[T], Generic[V, T], abstract=True):
    pass


class Orders(Paged[OrderView]):
    pass


class MappedOrders(Mapped[int, OrderView]):
    pass


class OrderCommand(DomainCommand[E], Generic[E], abstract=True):
    order_id: AggregateId


class GenericPlace(OrderCommand[PlacedEvent]):
    pass


class Derived(GenericPlace):
    pass


class TestResults:
    @pytest.mark.parametrize(
        ("cls", "result"),
        [
            (FindQuery, OrderView),
            (SearchQuery, list[OrderView]),
            (PlaceCommand, PlacedEvent),
            (CaptureCommand, Any),
            (Orders, list[OrderView]),
            (MappedOrders, list[OrderView]),
            (GenericPlace, PlacedEvent),
            (Derived, PlacedEvent),
            (OrderCommand, Any),
        ],
    )
    def test_what_a_class_names_as_its_result(self, cls: type, result: object) -> None:
        assert result_type_of(cls) == result

    def test_none_and_unions(self) -> None:
        class MaybeFind(Query[OrderView | None]):
            pass

        class Void(ServiceCommand[None]):
            pass

        assert result_type_of(MaybeFind) == OrderView | None
        assert result_type_of(Void) is type(None)

    def test_strings_may_name_local_classes(self) -> None:
        class LocalView(View):
            pass

        class Above(Query["LocalView"]):
            pass

        class Below(DomainCommand["LaterEvent"]):
            key: AggregateId

        class LaterEvent(DomainEvent):
            pass

        assert result_type_of(Above) is LocalView
        assert result_type_of(Below, locals()) is LaterEvent
        assert result_type_of(Below) is LaterEvent

    def test_a_result_that_cannot_be_resolved(self) -> None:
        class Odd(Query["Nowhere"]):  # type: ignore[name-defined]
            pass

        with pytest.raises(DefinitionError, match=r"Odd .*its result cannot be resolved: name 'Nowhere'"):
            result_type_of(Odd)


PREAMBLE = "from __future__ import annotations\nfrom typing import *\nimport msgspec\nfrom evento import *\n"

MISTAKES = {
    "no aggregate id": ("class Bad(DomainCommand):\n    key: str", "needs an aggregate id: annotate the field"),
    "two aggregate ids": (
        "class Bad(DomainCommand):\n    one: AggregateId\n    two: AggregateId",
        "two aggregate ids, 'one' and 'two'",
    ),
    "two aggregate ids, one inherited": (
        "class Base(DomainCommand, abstract=True):\n    one: AggregateId\nclass Bad(Base):\n    two: AggregateId",
        "two aggregate ids",
    ),
    "aggregate id as field and property": (
        "class Bad(DomainCommand):\n    one: AggregateId\n    @property\n    def aggregate_id(self): return ''",
        "two aggregate ids, the field 'one' and the property",
    ),
    "aggregate id as a method": (
        "class Bad(DomainCommand):\n    def aggregate_id(self): return ''",
        "needs an aggregate id",
    ),
    "redefined context": ("class Bad(DomainEvent):\n    context: str", "'context' belongs to the framework"),
    "redefined default": ("class Bad(DomainEvent):\n    context = 'eu'", "'context' belongs to the framework"),
    "redefined telemetry": ("class Bad(Query[int]):\n    force_telemetry: bool = True", "belongs to the framework"),
    "redefined invalidation": (
        "class Bad(DomainCommand):\n    key: AggregateId\n    invalidate_aggregate_caches: bool = True",
        "belongs to the framework",
    ),
    "lock id as a field": (
        "class Bad(ServiceCommand):\n    lock_id: str",
        "lock_id is derived from the command.*define it as a property",
    ),
    "lock id as a method": (
        "class Bad(ServiceCommand):\n    def lock_id(self): return 'x'",
        "lock_id must be a property: add @property",
    ),
    "unknown class keyword": ("class Bad(DomainEvent, versoin=2): ...", "unknown class keyword 'versoin'"),
    "unresolved annotation": ("class Bad(DomainEvent):\n    what: Missing", "'Missing' is not defined.*at run time"),
    "not frozen": ("class Bad(DomainEvent, frozen=False): ...", "payloads are immutable: remove frozen=False"),
    "array": ("class Bad(DomainEvent, array_like=True): ...", "payloads are JSON objects"),
    "version zero": ("class Bad(DomainEvent, version=0): ...", "version= must be a whole number from 1"),
    "version that is no number": ("class Bad(DomainEvent, version='2'): ...", "not '2'"),
    "version that is a flag": ("class Bad(DomainEvent, version=True): ...", "not True"),
    "name that is no word": ("class Bad(DomainEvent, name='a b'): ...", "must be a word of letters, digits"),
    "name with a wildcard": ("class Bad(DomainEvent, name='a.*'): ...", "must be a word"),
    "class name beyond ASCII": ("class Bäd(DomainEvent): ...", "must be ASCII: give the class a name="),
    "field order": ("class Bad(DomainEvent):\n    one: int = 1\n    two: int", "Bad.*cannot follow optional"),
    "no kind": ("class Bad(Event): ...", "Event has no kind of its own: derive the class from DomainCommand"),
}


def define(source: str) -> Any:
    module = sys.modules["case"] = ModuleType("case")
    try:
        exec(compile(PREAMBLE + source, "case.py", "exec"), vars(module))
    finally:
        del sys.modules["case"]
    return vars(module).get("Bad")


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_found_when_the_class_is_made(case: str) -> None:
    source, message = MISTAKES[case]

    with pytest.raises(DefinitionError, match=message) as caught:
        define(source)

    data = caught.value.data
    assert data["cls"] in {"Bad", "Bäd"}
    assert data["file"] == "case.py"
    assert data["line"] > PREAMBLE.count("\n")
    assert f"{data['cls']} (case.py:{data['line']}): " in str(caught.value)


@pytest.mark.parametrize(
    "field",
    [
        "Odd",
        "list[Odd]",
        "dict[str, tuple[Odd, ...]]",
        "Holder",
        "list[int] | set[int]",
        "Callable[[], int]",
    ],
)
def test_a_type_that_cannot_be_decoded_is_found_by_the_decoder(field: str) -> None:
    bad = define(
        "class Odd: ...\nclass Holder(msgspec.Struct):\n    odd: Odd\n    again: Holder | None = None\n"
        f"class Bad(DomainEvent):\n    what: {field}"
    )
    with pytest.raises(DefinitionError, match=r"Bad .*a field has a type that cannot be decoded from JSON"):
        _ = definition_of(bad).decoder


def test_an_answer_that_cannot_be_decoded_is_found_by_its_decoder() -> None:
    bad = define("class Bad(Query[Union[list[int], set[int]]]): ...")
    with pytest.raises(DefinitionError, match=r"Bad .*its answer .* cannot be decoded from JSON"):
        _ = definition_of(bad).result_decoder


def test_abstract_payloads_are_not_sent() -> None:
    class Base(DomainEvent, abstract=True):
        pass

    with pytest.raises(PayloadError, match="Base is abstract: send one of its subclasses"):
        seal(Base())


class TestSchema:
    def test_a_payload_has_a_json_schema(self) -> None:
        schema = json_schema(PlaceCommand)
        definitions = schema["$defs"]
        assert schema["$ref"] == "#/$defs/PlaceCommand"
        assert definitions["PlaceCommand"]["required"] == ["order_id", "customer"]
        assert definitions["PlaceCommand"]["properties"]["lines"]["items"] == {"$ref": "#/$defs/Line"}
        assert definitions["PlaceCommand"]["description"] == "Place an order.\n\nOr two."

    def test_without_a_schema_the_mistake_is_named(self) -> None:
        class Custom:
            pass

        class Holding(DomainEvent):
            custom: Custom

        with pytest.raises(DefinitionError, match=r"Holding .*no JSON schema can be made"):
            json_schema(Holding)

    def test_only_payloads_have_one(self) -> None:
        with pytest.raises(DefinitionError):
            json_schema(Line)
