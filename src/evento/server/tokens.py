"""The bundles' tokens: one file, of salted hashes only.

A token is 256 random bits, so its hash needs no slowness against guessing: bcrypt (what ``nats-server`` checks) runs at
its lowest cost, a millisecond, and a storm of reconnecting bundles does not keep the gateway busy.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from evento.errors import NotFound
from evento.server.errors import ConfigurationError, ServerError
from evento.server.private_files import locked, make_folder, read_private, write_private

__all__ = ["ADMIN_USER", "SERVER_USER", "Token", "TokenFile", "hash_secret", "new_secret"]

SERVER_USER = "evento-server"
ADMIN_USER = "evento-admin"
_FORMAT = 1
_COST = 4


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a token.

    ``serves`` are the commands and queries that its bundle may handle; None: all that no other token lists.
    """

    bundle: str
    hash: str
    serves: tuple[str, ...] | None = None
    created: datetime


class _Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    tokens: tuple[Token, ...]


class TokenFile:
    """The tokens of a cluster's bundles. All servers of a cluster need the same file, or copies of it.

    :param path: where it is. It need not exist: then nobody needs a token.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[Token, ...] | None:
        """Return the tokens in the order of their bundles; None when there is no file.

        :raises ServerError: others may read the file, or it is damaged.
        """
        data = read_private(self.path)
        if data is None:
            return None
        try:
            content = msgspec.json.decode(data, type=_Content)
        except msgspec.MsgspecError as error:
            raise ServerError(f"{self.path} is not a file of tokens: {error}") from None
        if content.format != _FORMAT:
            raise ServerError(f"{self.path} was written by a newer version of Evento (format {content.format})")
        return content.tokens

    def create(self, bundle: str, *, serves: Sequence[str] | None = None, replace: bool = False) -> str:
        """Make a token for a bundle and return its secret, which is kept nowhere.

        :param serves: the only commands and queries that the bundle may handle; no other bundle may then handle them.
        :param replace: whether a token that the bundle has is given up.
        :raises ConfigurationError: a name cannot be one, the bundle has a token, or another one's reserves a name.
        """
        _check_names(bundle, serves or ())
        make_folder(self.path.parent)
        with locked(self.path):
            tokens = {token.bundle: token for token in self.read() or ()}
            if bundle in tokens and not replace:
                raise ConfigurationError(f"{bundle!r} has a token: --replace gives it up, and who uses it is cut off")
            for other in tokens.values():
                if other.bundle != bundle and (both := set(other.serves or ()) & set(serves or ())):
                    raise ConfigurationError(
                        f"{min(both)!r} is reserved by the token of {other.bundle!r}: one bundle handles a name"
                    )
            secret = new_secret()
            tokens[bundle] = Token(
                bundle=bundle,
                hash=hash_secret(secret),
                serves=None if serves is None else tuple(sorted(set(serves))),
                created=datetime.now(timezone.utc).replace(microsecond=0),
            )
            self._write(tokens.values())
        return secret

    def revoke(self, bundle: str) -> None:
        """Give a bundle's token up: who uses it is cut off.

        :raises NotFound: it has none.
        """
        if not self.path.parent.is_dir():
            raise NotFound(f"there is no file {self.path}")
        with locked(self.path):
            tokens = self.read()
            if tokens is None:
                raise NotFound(f"there is no file {self.path}")
            kept = [token for token in tokens if token.bundle != bundle]
            if len(kept) == len(tokens):
                raise NotFound(f"{bundle!r} has no token in {self.path}")
            self._write(kept)

    def _write(self, tokens: Iterable[Token]) -> None:
        content = _Content(_FORMAT, tuple(sorted(tokens, key=lambda token: token.bundle)))
        write_private(self.path, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")


def new_secret() -> str:
    """Return 256 random bits as text."""
    return secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    """Return the salted hash of a secret, in the form that ``nats-server`` checks."""
    import bcrypt

    return bcrypt.hashpw(secret.encode(), bcrypt.gensalt(_COST)).decode()


def _check_names(bundle: str, serves: Sequence[str]) -> None:
    if bundle in (SERVER_USER, ADMIN_USER):
        raise ConfigurationError(f"{bundle!r} is a name of Evento itself: call the bundle something else")
    for what, name in (("a bundle id", bundle), *(("a payload name", name) for name in serves)):
        if not 0 < len(name) <= 200 or not name.isprintable():
            raise ConfigurationError(f"{name!r:.80} cannot be {what}: write 1 to 200 printable characters")
    for name in serves:
        if "," in name or any(character.isspace() for character in name):
            raise ConfigurationError(f"{name!r:.80} is no payload name: give the names one by one, with spaces between")
