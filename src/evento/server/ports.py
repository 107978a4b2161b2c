"""Whether an address is free to listen on."""

from __future__ import annotations

import errno
import os
import socket

from evento.server.errors import ServerError
from evento.server.values import Address

__all__ = ["check_free", "free_port", "listening"]


def listening(setting: str, address: Address) -> socket.socket:
    """Return a socket that listens where a setting says.

    :raises ServerError: another process listens there, or the address is not this machine's.
    """
    try:
        return _listening(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ServerError(
                f"port {address.port} is taken: another process listens on {address}; stop it, or choose another "
                f"with --{setting}"
            ) from None
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ServerError(f"nothing can listen on {address} (--{setting}): {reason}") from None


def check_free(setting: str, address: Address) -> None:
    """Listen where a setting says, and stop again.

    :raises ServerError: as :func:`listening` does.
    """
    listening(setting, address).close()


def free_port(host: str) -> int:
    """Return a port that is free now."""
    with _listening(Address(host, 0)) as found:
        port: int = found.getsockname()[1]
        return port


def _listening(address: Address) -> socket.socket:
    family, kind, protocol, _, where = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(where)
        found.listen(128)
    except BaseException:
        found.close()
        raise
    return found
