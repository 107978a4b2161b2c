"""The server's HTTP interface: ``/health/live``, ``/health/ready`` and ``/metrics``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Self

import uvicorn
from litestar import Litestar, Request, Response, get
from litestar.exceptions import NotAuthorizedException, ServiceUnavailableException

from evento.server.errors import ServerError
from evento.server.health import Health
from evento.server.http_connections import connection_class
from evento.server.ports import listening
from evento.server.settings import ServerSettings
from evento.server.values import Address

__all__ = ["HttpServer", "application"]

logger = logging.getLogger("evento.server.http")

_MAX_CONNECTIONS = 500
_MAX_METRICS, _MAX_READY = 10, 100
_PROMETHEUS = "text/plain; version=0.0.4"


class _Room:
    """Bounds how many requests of one kind are answered at the same time."""

    def __init__(self, path: str, most: int) -> None:
        self._path = path
        self._most = most
        self._taken = 0

    def __enter__(self) -> None:
        if self._taken == self._most:
            raise ServiceUnavailableException(f"{self._most} requests of {self._path} are being answered: ask later")
        self._taken += 1

    def __exit__(self, *_: object) -> None:
        self._taken -= 1


def application(
    health: Health, metrics: Callable[[], Awaitable[bytes]], *, metrics_token: str | None = None
) -> Litestar:
    """Return the web application.

    :param metrics: returns the text that ``/metrics`` shows.
    :param metrics_token: what must be sent to read it; None: nothing.
    """
    room_for_ready, room_for_metrics = _Room("/health/ready", _MAX_READY), _Room("/metrics", _MAX_METRICS)

    @get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "up"}

    @get("/health/ready")
    async def ready() -> Response[dict[str, Any]]:
        with room_for_ready:
            missing = await health.not_ready()
        content = {"status": "not ready", "not_ready": missing} if missing else {"status": "ready"}
        return Response(content, status_code=503 if missing else 200)

    @get("/metrics")
    async def shown(request: Request[Any, Any, Any]) -> Response[bytes]:
        given = request.headers.get("authorization", "")
        if metrics_token and not secrets.compare_digest(given.encode(), f"Bearer {metrics_token}".encode()):
            raise NotAuthorizedException("send the metrics_token as Authorization: Bearer ...")
        with room_for_metrics:
            return Response(await metrics(), media_type=_PROMETHEUS)

    return Litestar([live, ready, shown], openapi_config=None, logging_config=None)


class _Uvicorn(uvicorn.Server):
    """Leaves the process's signals alone: they are the whole server's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Serves an application from entering to leaving.

    :param max_connections: connections at a time; one more takes the place of the oldest.
    """

    def __init__(self, settings: ServerSettings, app: Litestar, *, max_connections: int = _MAX_CONNECTIONS) -> None:
        self._address = settings.http
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                http=connection_class(head_seconds=settings.auth_timeout, most=max_connections),
                ws="none",
                headers=[("connection", "close")],
                timeout_graceful_shutdown=5,
                ssl_certfile=settings.tls_cert,
                ssl_keyfile=settings.tls_key,
            )
        )
        self._serving: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None

    @property
    def address(self) -> Address:
        """Where it listens; with the port that the system chose."""
        return self._address

    async def __aenter__(self) -> Self:
        """Listen.

        :raises ServerError: another process listens there, or the address is not this machine's.
        """
        self._socket = listening("http", self._address)
        self._address = Address(self._address.host, self._socket.getsockname()[1])
        self._serving = asyncio.create_task(self._server.serve([self._socket]), name="evento http")
        try:
            await self._begun(self._serving)
            if self._serving.done():
                self._serving.result()
                raise ServerError(f"the HTTP interface did not start on {self._address}")
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def _begun(self, serving: asyncio.Task[None]) -> None:
        while not self._server.started and not serving.done():  # noqa: ASYNC110  (uvicorn has no event)
            await asyncio.sleep(0.005)

    async def _stop(self) -> None:
        if self._serving is not None:
            await self._begun(self._serving)  # told earlier, uvicorn would leave its sockets open
            self._server.should_exit = True
            await asyncio.wait({self._serving})
        if self._socket is not None:
            self._socket.close()
