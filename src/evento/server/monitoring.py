"""Asking a ``nats-server`` on this machine how it is: its monitoring interface, which is HTTP on loopback."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import msgspec

__all__ = ["ask"]

_MAX_BYTES = 2**20


async def ask(url: str, path: str, *, timeout: float = 2.0) -> dict[str, Any]:
    """Return what the interface at ``url`` answers to ``GET path``.

    :raises OSError: no answer came in time, or one that is none (:class:`TimeoutError` is one).
    """
    async with asyncio.timeout(timeout):
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=_MAX_BYTES)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            answer = await reader.read(_MAX_BYTES)
            while more := await reader.read(_MAX_BYTES):
                answer += more
                if len(answer) > _MAX_BYTES:
                    raise OSError(f"the answer to {path} is too long")
        finally:
            writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0] + b" ":
        raise OSError(f"{path} was answered with {head[:80]!r}")
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise OSError(f"the answer to {path} is no JSON: {error}") from None
