"""A running bundle of the shop, on a file and in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import shop

from evento import EventoBundle


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., EventoBundle]:
    """Return a maker of bundles on one file; options go to the bundle."""

    def make(*, orders: shop.Orders | None = None, ledger: shop.Ledger | None = None, **options: Any) -> EventoBundle:
        options.setdefault("components", shop.COMPONENTS)
        options.setdefault("server", f"embedded:{tmp_path / 'shop.db'}")
        options.setdefault("injector", {shop.Orders: orders or shop.Orders(), shop.Ledger: ledger or shop.Ledger()})
        return EventoBundle("shop-bundle", **options)

    return make


@pytest.fixture
async def bundle(make_bundle: Callable[..., EventoBundle]) -> AsyncIterator[EventoBundle]:
    """A running shop."""
    async with make_bundle() as running:
        yield running
