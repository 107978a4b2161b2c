"""No file, lock or sleep of Evento's ever holds up the event loop, from the first start to the last stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest
from blockbuster import blockbuster_ctx
from journal import orders
from shop import COMPONENTS, OrderFindQuery, OrderPlaceCommand, Orders

from evento import EventoBundle, EventoError

MakeBundle = Callable[..., EventoBundle]


@pytest.mark.parametrize("place", ["file", "memory"])
async def test_a_bundle_at_work_never_blocks_the_loop(make_bundle: MakeBundle, place: str) -> None:
    options = {"server": "embedded:"} if place == "memory" else {}
    async with make_bundle(**options):
        pass  # what Python and the libraries import only when it is used
    with blockbuster_ctx() as blocking:
        blocking.functions["os.path.abspath"].deactivate()  # SQLAlchemy asks for the working directory
        async with make_bundle(components=COMPONENTS, orders=Orders(), **options) as bundle:
            wanted = orders(Random(1), prefix="msg", aggregates="ORD", width=5)
            outcomes = await asyncio.gather(
                *(bundle.commands.send(next(wanted).command) for _ in range(200)), return_exceptions=True
            )
            assert all(not isinstance(each, Exception) or isinstance(each, EventoError) for each in outcomes)
            message = await bundle.commands.send_message(OrderPlaceCommand("ORD_X", "ann"))
            await bundle.queries.query(OrderFindQuery("ORD_X"), at_least=message.position)
            await bundle.consumers_caught_up()
