"""The kinds of values that settings take: how each is read from text or TOML, and shown again."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

__all__ = ["ADDRESS", "FLAG", "NAME", "NUMBER", "PATH", "SECONDS", "SIZE", "TEXT", "URLS", "Address", "Kind", "choice"]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens. Port 0 lets the system choose a free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value. ``read`` takes text, or the TOML value, and raises :class:`ValueError` that says what to write.

    ``metavar`` stands for a value in the help, ``unit`` is what numbers count.
    """

    metavar: str
    read: Callable[[Any], Any]
    show: Callable[[Any], str] = str
    unit: str = ""


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("write text")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", value):
        raise ValueError("write 1 to 64 letters, digits, - and _")
    return value


def _number(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,15}", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("write a whole number from 1")
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", value):
        value = float(value)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise ValueError("write seconds, such as 2 or 0.5")
    return float(value)


_UNITS: Final = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def _size(value: Any) -> int:
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9]{1,15}) ?(B|KiB|MiB|GiB|)", value)):
        value = int(match[1]) * _UNITS[match[2]]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("write bytes, such as 8388608 or 8MiB")
    return value


def _show_size(value: int) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if value % _UNITS[unit] == 0:
            return f"{value // _UNITS[unit]}{unit}"
    return str(value)


def _flag(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false", "1", "0"):
        return value.lower() in ("true", "1")
    if not isinstance(value, bool):
        raise ValueError("write true or false")
    return value


def _address(value: Any) -> Address:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", value if _is_text(value) else "")
    if match is None or int(match[3]) > 65535:
        raise ValueError("write HOST:PORT, such as 127.0.0.1:3030 or [::1]:3030")
    return Address(match[1] or match[2], int(match[3]))


def _urls(value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError("write URLs with commas between them, such as nats://a:3030,nats://b:3030")
    texts = [part.strip() for part in parts if part.strip()]
    # What the first demands, such as encryption, holds for those that leave it out.
    scheme = texts[0].partition("://")[0] if texts and "://" in texts[0] else "nats"
    return tuple(_url(text if "://" in text else f"{scheme}://{text}") for text in texts)


def _url(url: str) -> str:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("nats", "tls") and parts.hostname and parts.port and not parts.path.strip("/")
    except ValueError:
        fine = False
    if not fine:
        raise ValueError("write nats://HOST:PORT, or tls://HOST:PORT, with commas between several")
    if "@" in url:
        raise ValueError("write the URL without user and password: secrets have settings of their own")
    return url


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def choice(*names: str) -> Kind:
    """Return the kind of value that is one of ``names``."""

    def read(value: Any) -> str:
        if value not in names:
            raise ValueError(f"write one of {', '.join(names)}")
        return str(value)

    return Kind("|".join(names), read)


TEXT: Final = Kind("TEXT", _text)
NAME: Final = Kind("NAME", _name)
PATH: Final = Kind("PATH", _text)
NUMBER: Final = Kind("N", _number)
SECONDS: Final = Kind("SECONDS", _seconds, lambda value: f"{value:g}", "seconds")
SIZE: Final = Kind("BYTES", _size, _show_size, "bytes")
FLAG: Final = Kind("", _flag, lambda value: "true" if value else "false")
ADDRESS: Final = Kind("HOST:PORT", _address)
URLS: Final = Kind("URL,...", _urls, ",".join)
