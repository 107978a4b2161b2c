"""One TCP connection to one NATS server, from its greeting to its end."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, cast
from urllib.parse import urlsplit

from evento.errors import AuthenticationError
from evento.gateway.nats.protocol import PING, PONG, Parser, ProtocolError, connect_line

__all__ = ["Address", "Link", "LinkSettings"]

logger = logging.getLogger("evento.gateway.nats")
MessageCallback: TypeAlias = Callable[[bytes, bytes, bytes, bytes, bytes], None]
DEFAULT_PORT = 3030
WRITE_HIGH = 1024 * 1024
"""Bytes that may wait in the socket's buffer before senders wait."""
_REFUSED = ("authorization violation", "authentication expired", "authentication revoked")


class Address(NamedTuple):
    """Where a NATS server listens; ``tls`` demands an encrypted connection."""

    host: str
    port: int
    tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls' if self.tls else 'nats'}://{host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``nats://host:port``, ``tls://host:port`` or ``host:port``; the port defaults to 3030.

        :raises ValueError: it is none, or holds a password: addresses are printed, tokens are given apart.
        """
        parts = urlsplit(text if "://" in text else f"nats://{text}")
        if parts.scheme not in ("nats", "tls"):
            raise ValueError(
                f"{parts.scheme}://... is no address of a server: write nats://host:port or tls://host:port"
            )
        if parts.username is not None or parts.password is not None:
            raise ValueError("an address of a server holds no user and no token: give the token apart from it")
        if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError(f"{text!r} is no address of a server: write nats://host:port or tls://host:port")
        return cls(parts.hostname, parts.port or DEFAULT_PORT, parts.scheme == "tls")


class LinkSettings(NamedTuple):
    """Who connects, and how long may what take.

    ``tls`` given or a ``tls://`` address means: never without encryption. Times are in seconds; a server that leaves
    two pings unanswered counts as gone.
    """

    user: str
    name: str
    token: str | None = None
    tls: ssl.SSLContext | None = None
    connect_timeout: float = 2.0
    ping_interval: float = 5.0


class Link(asyncio.Protocol):
    """One connection; made by :meth:`open`, of no use once it is lost.

    Writes of one turn of the event loop leave as one. Messages are handed over as they arrive, without a queue: the
    callback must not block.
    """

    def __init__(self, settings: LinkSettings, on_message: MessageCallback, on_error: Callable[[str], None]) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._on_error = on_error
        self._parser = Parser(self)
        self.on_message = on_message
        self._transport: asyncio.Transport | None = None
        self._greeting: asyncio.Future[None] = self._loop.create_future()
        self._pongs: deque[asyncio.Future[None] | None] = deque()
        self._unwritten: list[bytes] = []
        self._pinger: asyncio.TimerHandle | None = None
        self._unanswered = 0
        self._ready = False
        self._writable = asyncio.Event()
        self._writable.set()
        self.info: dict[str, Any] = {}
        self.is_open = False
        self.why_lost: Exception | None = None
        self.lost: asyncio.Future[None] = self._loop.create_future()

    @classmethod
    async def open(
        cls,
        address: Address,
        settings: LinkSettings,
        *,
        on_message: MessageCallback,
        on_error: Callable[[str], None],
    ) -> Link:
        """Connect, encrypt where it is asked for, authenticate.

        :raises AuthenticationError: the server refused user and token.
        :raises OSError: the server cannot be reached, did not answer in time (TimeoutError) or spoke no NATS.
        """
        link = cls(settings, on_message, on_error)
        try:
            async with asyncio.timeout(settings.connect_timeout):
                await link._shake_hands(address)
        except BaseException:
            await link.close()
            raise
        return link

    async def _shake_hands(self, address: Address) -> None:
        transport, _ = await self._loop.create_connection(lambda: self, address.host, address.port)
        await self._greeting
        tls = self._settings.tls
        if tls is not None or address.tls or self.info.get("tls_required"):
            if not (self.info.get("tls_required") or self.info.get("tls_available")):
                raise ConnectionError(f"{address} offers no TLS")
            transport = cast(
                asyncio.Transport,
                await self._loop.start_tls(
                    transport, self, tls or ssl.create_default_context(), server_hostname=address.host
                ),
            )
            self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH)
        self.write(connect_line(self._introduction()))
        await self.ping()
        self._ready = True
        self._pinger = self._loop.call_later(self._settings.ping_interval, self._ping_again)

    def _introduction(self) -> dict[str, Any]:
        options = {
            "verbose": False,
            "pedantic": False,
            "lang": "python-evento",
            "version": "1",
            "protocol": 1,
            "echo": True,
            "headers": True,
            "no_responders": True,
            "name": self._settings.name,
        }
        if self._settings.token is not None:
            options |= {"user": self._settings.user, "pass": self._settings.token}
        return options

    @property
    def max_payload(self) -> int:
        """The largest message that the server takes, in bytes."""
        limit = self.info.get("max_payload")
        return limit if isinstance(limit, int) and limit > 0 else 1024 * 1024

    @property
    def peers(self) -> list[str]:
        """The addresses (``host:port``) that the server names for its cluster."""
        urls = self.info.get("connect_urls")
        return [url for url in urls if isinstance(url, str)] if isinstance(urls, list) else []

    @property
    def is_writable(self) -> bool:
        """Whether the server takes what is sent; when not, await :meth:`writable` before sending more."""
        return self._writable.is_set()

    async def writable(self) -> None:
        """Wait until the server takes what is sent, or the connection is lost."""
        await self._writable.wait()

    def write(self, data: bytes) -> None:
        """Send bytes, together with all others of this turn of the event loop."""
        if not self._unwritten:
            self._loop.call_soon(self._flush)
        self._unwritten.append(data)

    def _flush(self) -> None:
        data, self._unwritten = self._unwritten, []
        if data and self._transport is not None and self.is_open:
            self._transport.write(data[0] if len(data) == 1 else b"".join(data))

    async def ping(self) -> None:
        """Wait until the server has seen all that was sent before.

        :raises OSError: the connection was lost.
        """
        pong: asyncio.Future[None] = self._loop.create_future()
        self._pongs.append(pong)
        self.write(PING)
        await pong

    def _ping_again(self) -> None:
        if self._unanswered >= 2:
            self._abort(ConnectionError("the server leaves pings unanswered"))
            return
        self._unanswered += 1
        self._pongs.append(None)
        self.write(PING)
        self._pinger = self._loop.call_later(self._settings.ping_interval, self._ping_again)

    def _abort(self, error: Exception) -> None:
        if self.why_lost is None:
            self.why_lost = error
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Send what was written, then end the connection; at most two seconds."""
        if self._transport is None:
            return
        self._flush()
        self._transport.close()
        try:
            await asyncio.wait((self.lost,), timeout=1.0)
        finally:  # also when the wait is cancelled: nothing may be left open
            if not self.lost.done():
                self._transport.abort()
        # A connection that failed while TLS began may never report its end.
        await asyncio.wait((self.lost,), timeout=1.0)

    # What the transport and the parser call.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Take bytes from the server."""
        try:
            self._parser.feed(data)
        except ProtocolError as error:
            self._abort(ConnectionError(f"the server does not speak NATS: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        """End: whoever waits for something of this connection learns it."""
        self.is_open = False
        reason = self.why_lost or error or ConnectionError("the server closed the connection")
        self.why_lost = reason
        if self._pinger is not None:
            self._pinger.cancel()
        for waiting in (self._greeting, *self._pongs):
            if waiting is not None and not waiting.done():
                waiting.set_exception(reason)
                waiting.exception()  # whoever waited may be gone
        self._pongs.clear()
        self._writable.set()
        if not self.lost.done():
            self.lost.set_result(None)

    def pause_writing(self) -> None:
        """Take note that the server does not keep up."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Take note that the server keeps up again."""
        self._writable.set()

    def on_info(self, info: dict[str, Any]) -> None:
        """Take what the server says of itself; it says so again when its cluster changes."""
        self.info = {**self.info, **info}
        if not self._greeting.done():
            self._greeting.set_result(None)

    def on_ping(self) -> None:
        """Answer the server's question whether this client is alive."""
        self.write(PONG)

    def on_pong(self) -> None:
        """Wake whoever pinged first."""
        self._unanswered = 0
        if self._pongs:
            pong = self._pongs.popleft()
            if pong is not None and not pong.done():
                pong.set_result(None)

    def on_error(self, text: str) -> None:
        """Take an error of the server: a refusal of this client, or of one operation; the server closes by itself."""
        if any(word in text.lower() for word in _REFUSED):
            mend = (
                "check its token" if self._settings.token else "it showed no token: set $EVENTO_TOKEN or --token-file"
            )
            self.why_lost = AuthenticationError(
                f"the server refused the user {self._settings.user!r}: {text}; {mend}",
                user=self._settings.user,
            )
        elif text.lower().startswith("permissions violation"):
            self._on_error(text)
        else:
            self.why_lost = ConnectionError(f"the server says: {text}")
            self._on_error(text)
