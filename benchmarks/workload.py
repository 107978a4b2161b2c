"""The work that both sides do: orders that get one line more with each command.

The state keeps one number for each article (there are few of them, so that a state's size does not grow with its
history), the event is about 280 bytes of JSON, and a command is decided before anything changes.
"""

from __future__ import annotations

from typing import Any

__all__ = ["EVENTS_EACH", "ORDERS", "line"]

ORDERS = 2_000
EVENTS_EACH = 20


def line(number: int) -> dict[str, Any]:
    """Return the fields of the order line with this number."""
    return {
        "sku": f"SKU-{number % 40:05d}",
        "title": f"An article with a name of some length, variant {number % 97}",
        "quantity": 1 + number % 5,
        "unit_price": 199 + number % 1000,
        "note": "leave it with the neighbour, who is at home from nine to five: ring twice, the bell is quiet",
    }
