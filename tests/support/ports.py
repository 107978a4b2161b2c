"""Ports for what has to be told its port before it listens."""

from __future__ import annotations

import os
import random
import socket
from itertools import count

__all__ = ["free_port"]

# Below those that the system gives to connections, and to who listens on port 0 (Linux: from 32768): between choosing
# a port here and listening on it, nobody comes to it by chance.
_FIRST, _COUNT = 12_000, 20_000
_chosen = count(random.Random(os.getpid()).randrange(_COUNT))


def free_port() -> int:
    """Return a port of this machine on which nobody listens now; no process is given one twice."""
    for number in _chosen:
        port = _FIRST + number % _COUNT
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError
