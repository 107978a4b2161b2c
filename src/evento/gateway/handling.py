"""What is being handled right now: the cause of whatever a handler sends.

One :class:`Handling` lives for one run of one handler. It is found through a ContextVar, used for correlation,
capability and deadlock checks only.
"""

from __future__ import annotations

from contextvars import ContextVar

from evento.messages import Message, Metadata, derived_id, new_id

__all__ = ["Handling", "current_handling", "handling_now"]


class Handling:
    """One run of one handler.

    :param message: the handled message, the cause of what is sent.
    :param handler: the handler or consumer, part of derived ids.
    :param metadata: what flows to the messages that it sends; default: the handled message's.
    :param boundaries: the boundaries that the chain of causes holds, this command's included.
    :param attempt: 1, or more when this handling repeats one whose outcome is unknown.
    :param longest_request: seconds that a query of it may take, whatever its timeout says; None: its timeout.
    """

    __slots__ = (
        "_counts",
        "_metadata",
        "attempt",
        "boundaries",
        "depth",
        "derive",
        "handler",
        "longest_request",
        "may_query",
        "may_send",
        "message",
    )

    def __init__(
        self,
        message: Message,
        *,
        handler: str,
        metadata: Metadata | None = None,
        may_send: bool,
        may_query: bool,
        boundaries: tuple[str, ...] = (),
        depth: int = 0,
        attempt: int = 1,
        derive: bool = True,
        longest_request: float | None = None,
    ) -> None:
        self.message = message
        self.handler = handler
        self._metadata = metadata
        self.may_send = may_send
        self.may_query = may_query
        self.boundaries = boundaries
        self.depth = depth
        self.attempt = attempt
        self.derive = derive
        self.longest_request = longest_request
        self._counts: dict[tuple[str, str], int] | None = None

    @property
    def metadata(self) -> Metadata:
        """What flows to the messages that the handler sends."""
        return self.message.metadata if self._metadata is None else self._metadata

    def next_id(self, name: str, boundary: str) -> str:
        """Return the id of the next message of this name and boundary: the same one whenever the handler runs again."""
        if not self.derive:
            return new_id()
        if self._counts is None:
            self._counts = {}
        key = (name, boundary)
        count = self._counts[key] = self._counts.get(key, 0) + 1
        return derived_id(self.message.message_id, self.handler, name, boundary, str(count))


handling_now: ContextVar[Handling | None] = ContextVar("evento_handling", default=None)


def current_handling() -> Handling | None:
    """Return the run of the handler that the calling code belongs to; None outside handlers."""
    return handling_now.get()
