"""Requests that wait for long are asked for; what no replica has is sent again.

NATS can lose a request on its way between two servers, and a reply when the connection of a handler is lost. Neither
side hears of it. So whoever waits for more than half a second asks all replicas of the name which of its requests they
have, by number, all in one message, and asks again from time to time.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from evento.errors import PayloadError
from evento.gateway.deadlines import Deadlines
from evento.gateway.nats.connection import Delivery, NatsConnection, Subscription
from evento.gateway.nats.numbers import Numbers
from evento.gateway.nats.waiting import Waiting
from evento.gateway.nats.wire import MAX_NUMBERS, decode_found, encode_inquiry

__all__ = ["Inquirer", "Sent"]

INTERVAL = 0.5
"""Seconds until a request is asked for, and for which answers are waited for."""
LONGEST_INTERVAL = 4.0
"""Seconds between inquiries for a request that is known to run."""
SILENT_ROUNDS = 2
"""After so many inquiries without a trace a request is sent again; then after twice as many, and so on."""


class Sent:
    """A request of ours on its way; :meth:`begin` and :meth:`sent` are told by who sends it."""

    __slots__ = ("inquirer", "key", "patience", "pause", "sends", "silent", "slot", "waiting")

    def __init__(self, inquirer: Inquirer, key: tuple[str, str]) -> None:
        self.inquirer = inquirer
        self.key = key
        self.waiting: Waiting | None = None
        self.sends = 0
        self.silent = 0
        self.patience = SILENT_ROUNDS
        self.pause = inquirer.interval
        self.slot = 0

    def begin(self, waiting: Waiting) -> None:
        """Take note of what waits for the answer."""
        self.waiting = waiting
        self.inquirer.watch(self)

    def sent(self) -> None:
        """Take note that it is sent now."""
        self.sends += 1
        self.silent = 0

    def expire(self) -> None:
        """Ask for it now."""
        self.inquirer.is_due(self)


class _Round:
    """One inquiry: who was asked for, and what came back."""

    def __init__(self, asked: list[Sent]) -> None:
        self.asked = {one.waiting.number: (one, one.sends) for one in asked if one.waiting is not None}
        self.running: set[int] = set()
        self.answered = False

    def take(self, delivery: Delivery) -> None:
        """Take the answer of one replica; an empty one says that there is none."""
        if delivery.data:
            try:
                found = decode_found(delivery.data)
            except PayloadError:
                return
            self.running.update(found.running)
            for number, reply in found.ended:
                one, _ = self.asked.get(number, (None, 0))
                if one is not None and one.waiting is not None:
                    one.waiting.answer(reply)
        self.answered = True


class Inquirer:
    """Asks for the requests of one bus that wait for long.

    A request is sent again when replicas answer, or there are none, and none of them has it, twice in a row. Silence
    alone proves nothing: replicas that are too busy to answer are not asked to do more. Each resend makes it twice as
    patient.

    :param interval: in seconds.
    """

    def __init__(self, connection: NatsConnection, *, interval: float = INTERVAL) -> None:
        self.interval = interval
        self._connection = connection
        self._replies = f"{connection.inbox}.inquiry"
        self._deadlines = Deadlines()
        self._due: set[Sent] = set()
        self._rounds: dict[str, _Round] = {}
        self._numbers = Numbers()
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.asked = 0
        """Inquiries so far."""
        self.resent = 0
        """Requests that were sent again so far because nobody had them."""

    def watch(self, one: Sent) -> None:
        """Ask for a request after its pause."""
        one.slot = self._deadlines.watch(asyncio.get_running_loop().time() + one.pause, one)

    def forget(self, one: Sent) -> None:
        """Let a request go."""
        if one.waiting is not None:
            one.waiting = None
            self._deadlines.forget(one.slot, one)
            self._due.discard(one)

    def is_due(self, one: Sent) -> None:
        """Ask for a request with the next inquiry."""
        self._due.add(one)
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._ask(), name="evento inquiries")
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled():
            task.result()

    async def _ask(self) -> None:
        """Ask as long as something is due; what could not be asked for is asked for later."""
        due: set[Sent] = set()
        try:
            if self._subscription is None:
                self._subscription = await self._connection.subscribe(f"{self._replies}.*", self._take)
            while self._due:
                due, self._due = self._due, set()
                rounds = self._publish(due)
                await asyncio.sleep(self.interval)
                for reply in rounds:
                    self._conclude(self._rounds.pop(reply))
        except Exception:
            self._put_off(due | self._due)
            raise

    def _put_off(self, due: set[Sent]) -> None:
        self._due.clear()
        self._rounds.clear()
        for one in due:
            if one.waiting is not None:
                one.pause = min(2 * one.pause, LONGEST_INTERVAL)
                self.watch(one)

    def _publish(self, due: set[Sent]) -> list[str]:
        by_key: dict[tuple[str, str], list[Sent]] = defaultdict(list)
        for one in due:
            by_key[one.key].append(one)
        replies = []
        for key, asked in by_key.items():
            for start in range(0, len(asked), MAX_NUMBERS):
                reply = f"{self._replies}.{self._numbers.next()}"
                this = self._rounds[reply] = _Round(asked[start : start + MAX_NUMBERS])
                self._connection.publish(
                    self._connection.subjects.inquiry(*key), encode_inquiry(list(this.asked)), reply=reply
                )
                replies.append(reply)
                self.asked += 1
        return replies

    def _take(self, delivery: Delivery) -> None:
        this = self._rounds.get(delivery.subject)
        if this is not None:
            this.take(delivery)

    def _conclude(self, this: _Round) -> None:
        for number, (one, sends) in this.asked.items():
            if one.waiting is None:
                continue
            if number in this.running:
                one.silent = 0
                one.pause = min(2 * one.pause, LONGEST_INTERVAL)
            elif this.answered and one.sends == sends > 0 and self._connection.is_connected:
                one.pause = self.interval
                one.silent += 1
                if one.silent < one.patience:
                    self._due.add(one)
                    continue
                one.patience *= 2
                self.resent += one.waiting.is_sent
                one.waiting.send_again()
            self.watch(one)

    async def close(self) -> None:
        """Ask no more."""
        self._closed = True
        self._deadlines.close()
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._subscription is not None:
            await self._subscription.unsubscribe()
            self._subscription = None
