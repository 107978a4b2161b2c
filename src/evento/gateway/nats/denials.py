"""What a server says when a user may not do something; it leaves the connection open."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Denial", "denial_of"]

_DENIED = re.compile(
    r"permissions violation for (?P<what>publish|subscription)(?P<reply> with reply of| to) "
    r'"(?P<subject>[^"]*)"(?: using queue "(?P<queue>[^"]*)")?',
    re.IGNORECASE,
)


class Denial(NamedTuple):
    """What was refused: to listen to a subject, or to send there."""

    subject: str
    to_listen: bool


def denial_of(text: str) -> Denial | None:
    """Return what an error of the server refuses; None: it is about something else."""
    found = _DENIED.match(text)
    return None if found is None else Denial(found["subject"], found["what"].lower() == "subscription")
