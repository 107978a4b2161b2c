"""Certificates for tests: an authority, and what it signs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import trustme

__all__ = ["Certificates"]


@dataclass
class Certificates:
    """Files in a folder, made by one authority."""

    folder: Path

    def __post_init__(self) -> None:
        self._authority = trustme.CA()
        self.ca = self.folder / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca))

    def make(self, name: str, *, days: int = 1) -> tuple[Path, Path]:
        """Return certificate and key for this machine, valid until so many days from now."""
        made = self._authority.issue_cert(
            "localhost", "127.0.0.1", not_after=datetime.now(timezone.utc) + timedelta(days=days)
        )
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"
        cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        made.private_key_pem.write_to_path(str(key))
        return cert, key
