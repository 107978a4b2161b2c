"""The server's certificate: checked before anything starts, and what the server's own connection trusts."""

from __future__ import annotations

import ssl
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from evento.server.errors import ServerError
from evento.server.settings import ServerSettings

__all__ = ["check_certificate", "own_context"]

_HANDSHAKE_STEPS = 4


def check_certificate(settings: ServerSettings) -> datetime | None:
    """Return until when the certificate holds; None without TLS.

    :raises ServerError: a file cannot be read, the key is another's, or the certificate is not valid now.
    """
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None or key is None:
        return None
    for name in ("tls_cert", "tls_key", "tls_ca"):
        _check_readable(name, getattr(settings, name))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(cert, key, password="")  # an encrypted key fails instead of asking at the terminal
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ServerError(f"the key {key} (tls_key) does not belong to the certificate {cert} (tls_cert)") from None
        raise ServerError(
            f"{cert} (tls_cert) and {key} (tls_key) are no PEM certificate and key: {_said(error)}"
        ) from None
    try:
        if settings.tls_ca is not None:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(settings.tls_ca)
        peer = _handshake(server, own_context(settings, with_key=False))
    except ssl.SSLCertVerificationError as error:
        raise ServerError(f"the certificate {cert} (tls_cert) is not valid: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise ServerError(f"{settings.tls_ca} (tls_ca) is no PEM file of certificates: {_said(error)}") from None
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(peer["notAfter"]), timezone.utc)


def own_context(settings: ServerSettings, *, with_key: bool = True) -> ssl.SSLContext:
    """Return what the server's own connection to its gateway trusts: the very certificate that the gateway shows.

    So it needs neither the authority's certificate nor a name that fits the loopback address.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if settings.tls_cert is not None and settings.tls_key is not None:
        context.load_verify_locations(settings.tls_cert)
        if with_key:  # for a gateway that asks everyone for a certificate
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    """Let the two speak TLS in memory, and return the certificate that the client saw."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(_HANDSHAKE_STEPS):
        for side in (asking, answering):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return asking.getpeercert() or {}


def _check_readable(name: str, file: Path | None) -> None:
    if file is None:
        return
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise ServerError(f"{file} ({name}) cannot be read: {error.strerror}") from None


def _said(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()
