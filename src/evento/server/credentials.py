"""The secrets of the server's own users, made at the first start and kept in the data folder."""

from __future__ import annotations

from pathlib import Path

import msgspec

from evento.server.errors import ServerError
from evento.server.private_files import locked, make_folder, read_private, write_private
from evento.server.tokens import new_secret

__all__ = ["Credentials"]


class Credentials(msgspec.Struct, frozen=True):
    """What the server itself (``evento-server``) and the terminal (``evento-admin``) show to the gateway."""

    server: str
    admin: str

    def __repr__(self) -> str:
        return "Credentials(...)"

    @staticmethod
    def path(data: Path) -> Path:
        """Return where they are in a server's data folder."""
        return data / "credentials.json"

    @classmethod
    def load(cls, data: Path) -> Credentials | None:
        """Return the credentials of a data folder; None when no server has made them yet.

        :raises ServerError: others may read the file, or it is damaged.
        """
        content = read_private(cls.path(data))
        if content is None:
            return None
        try:
            return msgspec.json.decode(content, type=cls)
        except msgspec.MsgspecError as error:
            raise ServerError(f"{cls.path(data)} is damaged: {error}; remove it, and new ones are made") from None

    @classmethod
    def ensure(cls, data: Path) -> Credentials:
        """Return the credentials of a data folder, which are made when there are none."""
        make_folder(data)
        with locked(cls.path(data)):
            found = cls.load(data)
            if found is None:
                found = cls(new_secret(), new_secret())
                write_private(cls.path(data), msgspec.json.encode(found))
            return found
