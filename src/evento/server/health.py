"""Whether the server can serve, part by part."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

__all__ = ["Health"]

_CHECK_SECONDS = 2.0

Check = Callable[[], Awaitable[str | None]]
"""Returns why a part is not ready; None when it is. It may also raise."""


class Health:
    """The parts of a server and how each is."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self.draining = False

    def add(self, part: str, check: Check) -> None:
        """Ask ``check`` whether a part is ready."""
        self._checks[part] = check

    async def not_ready(self) -> dict[str, str]:
        """Return what is not ready and why, by name; every part is asked for two seconds at most."""
        reasons = await asyncio.gather(*(_reason(check) for check in self._checks.values()))
        found = {part: reason for part, reason in zip(self._checks, reasons, strict=True) if reason is not None}
        if self.draining:
            found["server"] = "it is stopping"
        return found


async def _reason(check: Check) -> str | None:
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            return await check()
    except TimeoutError:
        return f"no answer within {_CHECK_SECONDS:g} seconds"
    except Exception as error:  # whatever it is: this part is not ready
        return str(error) or type(error).__name__
