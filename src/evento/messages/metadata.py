"""Metadata: what travels with a message beside its payload."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from evento.errors import PayloadError

__all__ = ["EMPTY_METADATA", "Metadata"]

_decoder = msgspec.json.Decoder(dict[str, str])
_encoder = msgspec.json.Encoder()


class Metadata(Mapping[str, str]):
    """A read-only mapping of str to str, such as ``{"user": "ann"}``.

    It flows from a message to everything that handling the message sends or publishes; a tracing agent may change
    what flows.

    :raises PayloadError: a key or value is not a str, or holds text that stores cannot keep.
    """

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, str] | None = None) -> None:
        self._items: dict[str, str] = {}
        if items:
            self._items = items._items if isinstance(items, Metadata) else _checked(items)

    @classmethod
    def checked(cls, items: Mapping[str, str] | None) -> Metadata:
        """Return ``items`` as metadata; raise :class:`PayloadError` when a key or value is not a plain str."""
        if isinstance(items, Metadata):
            return items
        return cls(items) if items else EMPTY_METADATA

    @classmethod
    def _of(cls, items: dict[str, str]) -> Metadata:
        """Return items that are known to be right."""
        metadata = cls()
        metadata._items = items
        return metadata

    @classmethod
    def from_json(cls, data: bytes) -> Metadata:
        """Decode what :meth:`to_json` gave."""
        if data == b"{}":
            return EMPTY_METADATA
        try:
            return cls._of(_decoder.decode(data))
        except (msgspec.MsgspecError, ValueError) as error:
            raise PayloadError(f"metadata is not a JSON object of strings: {error}") from error

    def to_json(self) -> bytes:
        """Encode as a JSON object."""
        return _encoder.encode(self._items) if self._items else b"{}"

    def merged(self, items: Mapping[str, str]) -> Metadata:
        """Return this metadata with ``items`` over it."""
        return Metadata._of({**self._items, **Metadata.checked(items)._items}) if items else self

    def to_dict(self) -> dict[str, str]:
        """Return a copy as a plain dict."""
        return dict(self._items)

    def __getitem__(self, key: str) -> str:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"Metadata({self._items!r})"

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))


def _checked(items: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(items, Mapping):
        raise PayloadError(f"metadata must be a mapping of str to str, not {type(items).__name__}")
    for key, value in items.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise PayloadError(
                f"metadata must map str to str, but {key!r} is {type(value).__name__}: convert it with str()",
                key=str(key),
            )
        _check_text(key, key)
        _check_text(key, value)
    return dict(items)


def _check_text(key: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PayloadError(f"metadata {key!r} holds a lone surrogate, which is not text", key=repr(key)) from None
    if "\0" in text:
        raise PayloadError(f"metadata {key!r} holds a NUL character, which stores cannot keep", key=repr(key))


EMPTY_METADATA = Metadata()
