"""What is waited for: requests without an answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

__all__ = ["NoResponders", "Waiting", "pauses"]


class NoResponders(Exception):
    """Nobody serves the subject now. ``attempt`` is more than 1 when a former attempt may have been served."""

    def __init__(self, subject: str, attempt: int) -> None:
        super().__init__(f"nobody serves {subject}")
        self.subject = subject
        self.attempt = attempt


class Waiting:
    """A request without an answer; the future's None tells that it is to be sent again."""

    __slots__ = ("attempt", "expired", "future", "number", "subject")

    def __init__(self, subject: bytes, number: int, future: asyncio.Future[bytes | None]) -> None:
        self.subject = subject
        self.number = number
        self.future = future
        self.attempt = 1
        self.expired = False

    def answer(self, data: bytes) -> None:
        """End with an answer that came another way."""
        if not self.future.done():
            self.future.set_result(data)

    def send_again(self) -> None:
        """Send it again, as after a lost connection."""
        if not self.future.done():
            self.future.set_result(None)

    def expire(self) -> None:
        """End at the deadline."""
        self.expired = True
        if not self.future.done():
            self.future.set_exception(TimeoutError())


def pauses(grace: float, deadline: float) -> Iterator[float]:
    """Yield growing pauses until the grace period or the deadline is over."""
    now = asyncio.get_running_loop().time
    end = min(now() + grace, deadline)
    pause = 0.005
    while (left := end - now()) > 0:
        yield min(pause * random.uniform(0.8, 1.2), left)  # noqa: S311 - not a secret
        pause = min(2 * pause, 0.25)
