"""What may be reached from other machines, and by whom."""

from __future__ import annotations

from collections.abc import Iterator

from evento.server.errors import ServerError
from evento.server.settings import ServerSettings

__all__ = ["check_exposure", "exposure_warnings"]


def check_exposure(settings: ServerSettings, *, has_tokens: bool) -> None:
    """Refuse addresses beyond this machine where nothing asks who comes, unless ``insecure`` allows it.

    :raises ServerError: names the address and the mend.
    """
    for address, mend in _open_addresses(settings, has_tokens):
        if not settings.insecure:
            raise ServerError(
                f"{address} is reached from other machines, and nothing asks there who comes: {mend}; or allow it "
                "with --insecure"
            )


def exposure_warnings(settings: ServerSettings, *, has_tokens: bool) -> Iterator[str]:
    """Yield what an operator should know about addresses beyond this machine."""
    for address, mend in _open_addresses(settings, has_tokens):
        yield f"{address} is open to everybody who reaches it (--insecure): {mend}"
    if not settings.tls and not settings.gateway.is_loopback and not settings.nats:
        yield f"tokens and messages cross the network unencrypted ({settings.gateway}): set tls_cert and tls_key"


def _open_addresses(settings: ServerSettings, has_tokens: bool) -> Iterator[tuple[str, str]]:
    if not settings.nats and not settings.gateway.is_loopback and not has_tokens:
        yield f"the gateway ({settings.gateway})", "make a token with 'evento token create BUNDLE'"
    routes = settings.cluster_listen
    if routes is not None and not routes.is_loopback and settings.cluster_secret is None:
        yield f"the address of other nodes ({routes})", "set $EVENTO_ES_CLUSTER_SECRET, the same on all nodes"
    if not settings.http.is_loopback and settings.metrics_token is None:
        yield f"/metrics ({settings.http})", "set $EVENTO_ES_METRICS_TOKEN"
