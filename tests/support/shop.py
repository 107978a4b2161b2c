"""A small shop: the components that many tests use."""

from __future__ import annotations

import asyncio

from evento import (
    Aggregate,
    AggregateId,
    AggregateState,
    CommandGateway,
    CommandMessage,
    CommandRejected,
    DomainCommand,
    DomainEvent,
    FencingToken,
    Invoker,
    Metadata,
    NotFound,
    Projection,
    Projector,
    Query,
    Service,
    ServiceCommand,
    ServiceEvent,
    View,
    aggregate_command_handler,
    command_handler,
    event_handler,
    event_sourcing_handler,
    invocation_handler,
    query_handler,
)


class OrderPlacedEvent(DomainEvent, domain="Order"):
    order_id: str
    customer: str


class ItemAddedEvent(DomainEvent, domain="Order"):
    order_id: str
    sku: str
    quantity: int


class OrderCancelledEvent(DomainEvent, domain="Order"):
    order_id: str


class OrderPlaceCommand(DomainCommand[OrderPlacedEvent], domain="Order"):
    """Place an order."""

    order_id: AggregateId
    customer: str


class ItemAddCommand(DomainCommand[ItemAddedEvent], domain="Order"):
    order_id: AggregateId
    sku: str
    quantity: int = 1
    lock: str | None = "own"

    @property
    def lock_id(self) -> str | None:
        return self.order_id if self.lock == "own" else self.lock


class OrderCancelCommand(DomainCommand[OrderCancelledEvent], domain="Order"):
    order_id: AggregateId


class OrderState(AggregateState):
    customer: str = ""
    items: dict[str, int] = {}
    total: int = 0


class OrderAggregate(Aggregate[OrderState]):
    """Orders of at most a hundred items."""

    @aggregate_command_handler(init=True)
    def place(self, command: OrderPlaceCommand, metadata: Metadata) -> OrderPlacedEvent:
        if not command.customer:
            raise CommandRejected("an order needs a customer", field="customer")
        return OrderPlacedEvent(command.order_id, command.customer, context=metadata.get("context", "default"))

    @event_sourcing_handler
    def on_placed(self, event: OrderPlacedEvent) -> OrderState:
        return OrderState(customer=event.customer)

    @aggregate_command_handler
    async def add(self, command: ItemAddCommand, state: OrderState) -> ItemAddedEvent:
        seen = state.total
        if command.lock != "own":
            await asyncio.sleep(0)  # lets others in, as a handler that waits for something does
        if seen + command.quantity > 100:
            raise CommandRejected("an order has at most 100 items", total=seen)
        return ItemAddedEvent(command.order_id, command.sku, command.quantity)

    @event_sourcing_handler
    def on_added(self, event: ItemAddedEvent, state: OrderState) -> None:
        state.items[event.sku] = state.items.get(event.sku, 0) + event.quantity
        state.total += event.quantity

    @aggregate_command_handler
    def cancel(self, command: OrderCancelCommand, state: OrderState) -> OrderCancelledEvent:
        return OrderCancelledEvent(command.order_id)

    @event_sourcing_handler
    def on_cancelled(self, event: OrderCancelledEvent, state: OrderState) -> None:
        state.deleted = True


class PaymentCapturedEvent(ServiceEvent, domain="Payment"):
    order_id: str
    amount: int
    token: int = 0


class PaymentCaptureCommand(ServiceCommand[PaymentCapturedEvent], domain="Payment"):
    order_id: str
    amount: int

    @property
    def lock_id(self) -> str | None:
        return f"PAY_{self.order_id}"


class MailSendCommand(ServiceCommand[None], domain="Mail"):
    text: str


class Ledger:
    """The outside system of the payment service: what it was asked to do."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.running: set[str] = set()
        self.overlaps = 0
        self.mails: list[str] = []


class PaymentService(Service):
    """Captures payments, one at a time for each order."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @command_handler
    async def capture(
        self, command: PaymentCaptureCommand, message: CommandMessage[PaymentCaptureCommand], token: FencingToken
    ) -> PaymentCapturedEvent:
        ledger = self._ledger
        ledger.overlaps += command.order_id in ledger.running
        ledger.running.add(command.order_id)
        ledger.calls.append((message.message_id, message.attempt))
        try:
            await asyncio.sleep(0)
        finally:  # also when it is cancelled there
            ledger.running.discard(command.order_id)
        if command.amount < 0:
            raise CommandRejected("a negative amount", amount=command.amount)
        return PaymentCapturedEvent(command.order_id, command.amount, int(token))

    @command_handler
    async def mail(self, command: MailSendCommand) -> None:
        self._ledger.mails.append(command.text)


class OrderView(View):
    order_id: str
    customer: str
    total: int


class OrderFindQuery(Query[OrderView], domain="Order"):
    order_id: str


class OrderSearchQuery(Query[list[OrderView]], domain="Order"):
    customer: str = ""


class Orders:
    """The read model: a dict."""

    def __init__(self) -> None:
        self.rows: dict[str, OrderView] = {}


class OrderProjector(Projector, version=1):
    def __init__(self, orders: Orders) -> None:
        self._orders = orders

    @event_handler
    def on_placed(self, event: OrderPlacedEvent) -> None:
        self._orders.rows[event.order_id] = OrderView(event.order_id, event.customer, 0)

    @event_handler
    def on_added(self, event: ItemAddedEvent) -> None:
        row = self._orders.rows[event.order_id]
        self._orders.rows[event.order_id] = OrderView(row.order_id, row.customer, row.total + event.quantity)

    @event_handler
    def on_cancelled(self, event: OrderCancelledEvent) -> None:
        self._orders.rows.pop(event.order_id, None)


class OrderProjection(Projection, projectors=(OrderProjector,)):
    def __init__(self, orders: Orders) -> None:
        self._orders = orders

    @query_handler
    async def find(self, query: OrderFindQuery) -> OrderView:
        try:
            return self._orders.rows[query.order_id]
        except KeyError:
            raise NotFound(f"there is no order {query.order_id}", order_id=query.order_id) from None

    @query_handler
    def search(self, query: OrderSearchQuery) -> list[OrderView]:
        return [row for row in self._orders.rows.values() if query.customer in row.customer]


class OrderInvoker(Invoker):
    @invocation_handler
    async def place(self, order_id: str, customer: str, *, user: str = "nobody") -> str:
        await self.commands.send(OrderPlaceCommand(order_id, customer), metadata={"user": user})
        return order_id

    @invocation_handler
    async def find(self, order_id: str) -> OrderView:
        return await self.queries.query(OrderFindQuery(order_id))


class TransferCommand(ServiceCommand[None], domain="Order"):
    """Moves an item by two commands, sent from within a handler."""

    source: str
    target: str
    sku: str


class TransferService(Service):
    @command_handler
    async def transfer(self, command: TransferCommand, commands: CommandGateway) -> None:
        await commands.send(ItemAddCommand(command.source, command.sku, -1))
        await commands.send(ItemAddCommand(command.target, command.sku, 1))


COMPONENTS = (OrderAggregate, PaymentService, OrderProjector, OrderProjection, OrderInvoker, TransferService)
