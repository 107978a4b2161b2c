"""Who may connect to the nats-server that the server starts: followed from the file of tokens while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Self

from evento.server.credentials import Credentials
from evento.server.errors import ServerError
from evento.server.nats_config import users_of
from evento.server.nats_server import NatsServer
from evento.server.permissions import User
from evento.server.settings import ServerSettings
from evento.server.tokens import Token, TokenFile, hash_secret

__all__ = ["TokenFollower", "Users"]

logger = logging.getLogger("evento.server.gateway")

_WATCH_SECONDS = 0.5


class Users:
    """Who may connect, as the file of tokens says; what it said last holds while it cannot be read.

    :raises ServerError: the file cannot be read at first.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._file = TokenFile(settings.token_file)
        self.credentials = Credentials.ensure(settings.data)
        self._server = hash_secret(self.credentials.server)
        self._admin = hash_secret(self.credentials.admin)
        self._stamp = self._current_stamp()
        self._tokens = self._file.read()
        self._is_read = True

    @property
    def allowed(self) -> list[User] | None:
        """The users; None: everybody, as there is no file."""
        if self._tokens is None:
            return None
        return users_of(self._settings, self._tokens, server=self._server, admin=self._admin)

    def changed(self) -> bool:
        """Read the file when it is another one than was read last; return whether there are other tokens now.

        :raises ServerError: it cannot be read, and is looked at again the next time; the tokens stay as they were.
        """
        stamp = self._current_stamp()
        if stamp == self._stamp and self._is_read:
            return False
        self._is_read = False
        tokens = self._file.read()
        if tokens is None:
            raise ServerError(f"{self._file.path} is gone: its tokens hold until a restart, which would need none")
        self._stamp, self._is_read = stamp, True
        _log_changes(self._tokens, tokens)
        changed, self._tokens = tokens != self._tokens, tokens
        return changed

    def _current_stamp(self) -> tuple[int, ...] | None:
        try:
            stat = self._file.path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size, stat.st_mode


def _log_changes(before: tuple[Token, ...] | None, after: tuple[Token, ...]) -> None:
    old = {token.bundle: token for token in before or ()}
    new = {token.bundle: token for token in after}
    for bundle in sorted(old.keys() | new.keys()):
        if old.get(bundle) != new.get(bundle):
            what = "revoked" if bundle not in new else "changed" if bundle in old else "new"
            logger.info("token of %s: %s", bundle, what)


class TokenFollower:
    """Lets nats-server follow the file of tokens, from entering to leaving.

    Whatever fails is tried again: a token that was revoked must not stay.
    """

    def __init__(self, users: Users, nats: NatsServer) -> None:
        self._users = users
        self._nats = nats
        self._behind = False
        self._task: asyncio.Task[None] | None = None
        self.trouble: str | None = None
        """Why nats-server does not have the tokens of the file now; None when it does."""

    async def __aenter__(self) -> Self:
        """Begin to follow."""
        self._task = asyncio.create_task(self._follow(), name="evento tokens")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            try:
                await self._look()
            except Exception as error:
                self._complain(error)
            else:
                self.trouble = None

    async def _look(self) -> None:
        try:
            self._behind = self._users.changed() or self._behind
        finally:  # what was read before the file became unreadable must get there
            if self._behind:
                await self._nats.reload()
                self._behind = False

    def _complain(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if text != self.trouble:
            foreseen = isinstance(error, ServerError)
            logger.error("nats-server keeps the tokens that it has: %s", text, exc_info=None if foreseen else error)
        self.trouble = text
