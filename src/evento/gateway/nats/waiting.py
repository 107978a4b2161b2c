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
    """A request without an answer; the future's None tells that it is to be sent again.

    An answer counts whenever it comes, to whichever send: also while the next one is prepared or waited for.
    """

    __slots__ = ("_answer", "attempt", "expired", "future", "is_sent", "number", "subject")

    def __init__(self, subject: bytes, number: int) -> None:
        self.subject = subject
        self.number = number
        self.attempt = 1
        self.expired = False
        self._answer: bytes | None = None
        self.future: asyncio.Future[bytes | None]
        self.renew()

    def renew(self) -> None:
        """Begin with another send; an answer that has come since the last one ended is not forgotten."""
        self.future = asyncio.get_running_loop().create_future()
        self.is_sent = False
        if self._answer is not None:
            self.future.set_result(self._answer)

    def answer(self, data: bytes) -> None:
        """End with an answer."""
        if self._answer is None:
            self._answer = data
            if not self.future.done():
                self.future.set_result(data)

    def fail(self, error: Exception) -> None:
        """End with an error about what was sent last."""
        if not self.future.done():
            self.future.set_exception(error)

    def send_again(self) -> None:
        """Send it again, as after a lost connection, unless it is about to be sent anyway."""
        if self.is_sent and not self.future.done():
            self.future.set_result(None)

    async def answer_within(self, pause: float) -> bytes | None:
        """Wait so many seconds for the answer to a former send; None: none came."""
        self.renew()
        timer = asyncio.get_running_loop().call_later(pause, self._end_pause)
        try:
            return await self.future
        except TimeoutError:
            return None
        finally:
            timer.cancel()

    def _end_pause(self) -> None:
        if not self.future.done():
            self.future.set_result(None)

    def expire(self) -> None:
        """End at the deadline."""
        self.expired = True
        self.fail(TimeoutError())


def pauses(grace: float, deadline: float) -> Iterator[float]:
    """Yield growing pauses until the grace period or the deadline is over."""
    now = asyncio.get_running_loop().time
    end = min(now() + grace, deadline)
    pause = 0.005
    while (left := end - now()) > 0:
        yield min(pause * random.uniform(0.8, 1.2), left)  # noqa: S311 - not a secret
        pause = min(2 * pause, 0.25)
