"""Waiting for what must not be left half done."""

from __future__ import annotations

import asyncio
from typing import TypeVar

__all__ = ["uncancelled"]

T = TypeVar("T")


async def uncancelled(future: asyncio.Future[T]) -> T:
    """Wait until ``future`` is done, even when the waiting task is cancelled meanwhile; then let the task be."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        future.exception()  # seen, though nobody will ask for it
        raise cancelled
    return future.result()
