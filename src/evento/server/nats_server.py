"""The ``nats-server`` that the server starts: a child process that is started again when it dies, and dies with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import msgspec

from evento.server.errors import ServerError
from evento.server.monitoring import ask
from evento.server.private_files import write_private

__all__ = ["NatsServer"]

logger = logging.getLogger("evento.server.nats")

_LAUNCHER = Path(__file__).with_name("die_with_parent.py")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_STEADY_SECONDS = 30.0
"""How long it must have run for the pause before its next start to be the shortest again."""
_STOP_SECONDS = 5.0
_LAST_BYTES = 8192


class _Ports(msgspec.Struct):
    """What a nats-server writes into its file of ports."""

    nats: list[str] = []
    monitoring: list[str] = []


class NatsServer:
    """Runs a ``nats-server`` from :meth:`__aenter__` to :meth:`__aexit__`.

    :param program: the program.
    :param folder: where its configuration, log and ports are; only its owner may enter it, and no other one uses it.
    :param config: makes the text of the configuration anew, for each start and :meth:`reload`.
    :param start_timeout: seconds that it may take to listen.
    """

    def __init__(self, program: Path, *, folder: Path, config: Callable[[], str], start_timeout: float = 30.0) -> None:
        self._program = program
        self._folder = folder
        self._config = config
        self._start_timeout = start_timeout
        self._process: asyncio.subprocess.Process | None = None
        self._monitoring = ""
        self._watch: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()  # a start that has written its configuration ends before a reload looks
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The child's process id; None while it does not run."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def __aenter__(self) -> Self:
        """Start it and wait until it listens.

        :raises ServerError: it ended, or did not listen in time; the message has what it said.
        """
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        self._watch = asyncio.create_task(self._keep_running(), name="evento nats-server")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        await self._stop()

    async def state(self) -> dict[str, Any]:
        """Return what it says of itself (``/varz``).

        :raises OSError: it does not answer now.
        """
        if self.pid is None:
            raise ConnectionError("nats-server does not run")
        return await ask(self._monitoring, "/varz")

    async def reload(self) -> None:
        """Let it read its configuration anew; who is connected and still allowed stays connected.

        :raises ServerError: it did not take the new configuration; the old one holds.
        """
        async with self._changing:
            process = self._process
            if process is None or process.returncode is not None:
                return  # its next start reads it
            before = (await self._asked()).get("config_load_time")
            await asyncio.to_thread(self._write_config)
            try:
                process.send_signal(signal.SIGHUP)
            except ProcessLookupError:
                return  # it has just died
            await self._loaded_since(before)

    async def _loaded_since(self, before: Any) -> None:
        try:
            async with asyncio.timeout(self._start_timeout):
                while (await self._asked()).get("config_load_time") == before:  # noqa: ASYNC110  (another process)
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise ServerError(f"nats-server did not take its new configuration: {self._last_words()}") from None

    async def _asked(self) -> dict[str, Any]:
        try:
            return await self.state()
        except OSError as error:
            raise ServerError(f"nats-server does not answer: {error}") from None

    # Its life ----------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        self._forget_ports()  # in a container the next nats-server may have the pid of one that was killed
        await asyncio.to_thread(self._write_config)
        with self._errors.open("wb") as errors:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                str(_LAUNCHER),
                str(os.getpid()),
                str(self._program),
                "-c",
                str(self._config_file),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,  # a Ctrl-C at the terminal is the server's to handle
            )
        ports_file = self._folder / f"nats-server_{self._process.pid}.ports"
        try:
            async with asyncio.timeout(self._start_timeout):
                while (ports := _read_ports(ports_file)) is None:
                    if self._process.returncode is not None:
                        raise ServerError(
                            f"nats-server ended with code {self._process.returncode}: {self._last_words()}"
                        )
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise ServerError(
                f"nats-server did not listen within {self._start_timeout:g} seconds: {self._last_words()}"
            ) from None
        self._monitoring = ports.monitoring[0]
        logger.info("nats-server listens on %s (pid %d)", ", ".join(ports.nats), self._process.pid)

    async def _keep_running(self) -> None:
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE
        while True:
            began = loop.time()
            if (process := self._process) is not None:
                code = await process.wait()
                logger.error("nats-server ended with code %d: %s", code, self._last_words())
            if loop.time() - began > _STEADY_SECONDS:
                pause = _FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            self.restarts += 1
            try:
                async with self._changing:
                    await self._start()
            except (ServerError, OSError) as error:
                logger.error("nats-server could not be started again: %s", error)
                await self._stop()

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _STOP_SECONDS)
                break
        self._forget_ports()

    # Its files ---------------------------------------------------------------------------------------------------

    @property
    def _config_file(self) -> Path:
        return (self._folder / "nats-server.conf").absolute()

    @property
    def _errors(self) -> Path:
        return self._folder / "nats-server.err"

    def _forget_ports(self) -> None:
        for left in self._folder.glob("nats-server_*.ports"):
            left.unlink(missing_ok=True)

    def _write_config(self) -> None:
        write_private(self._config_file, self._config().encode())

    def _last_words(self) -> str:
        """Return the last errors that it wrote, for a message."""
        lines: list[str] = []
        for file in (self._errors, self._folder / "nats-server.log"):
            with contextlib.suppress(OSError), file.open("rb") as content:
                content.seek(max(0, content.seek(0, os.SEEK_END) - _LAST_BYTES))
                lines += content.read().decode(errors="replace").splitlines()
        told = [line for line in lines if "[FTL]" in line or "[ERR]" in line or line.startswith("nats-server:")]
        return told[-1].strip() if told else f"see {self._folder / 'nats-server.log'}"


def _read_ports(file: Path) -> _Ports | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Ports)
    except (OSError, msgspec.MsgspecError):  # not there yet, or half written
        return None
