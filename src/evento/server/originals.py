"""The keys of the original Evento Server: what each is called here, or why it is gone.

Who moves a configuration over learns this from the first start, instead of from a key that is silently ignored.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["GONE", "RENAMED", "normalised", "verdict"]

_NO_UPLOADS = "bundles are not uploaded to the server: each runs as a process of its own ('evento run')"
_NO_CACHE = (
    "the server holds no states of aggregates: a bundle does (EventoBundle(state_cache_size=, state_cache_expiry=))"
)
_NO_POOL = (
    "the server has no thread pool to size: each bundle bounds its handlers (EventoBundle(max_concurrent_handlers=))"
)
_NO_USERS = "the HTTP interface has no users: metrics_token protects /metrics, tokens protect the gateway"
_OF_NATS = "NATS does this: it notices a lost connection by itself and connects again for ever"
_BY_DEADLINE = "every request carries its own deadline, and nothing is started after it"

RENAMED: Final = {
    "evento_cluster_name": "cluster_name",
    "evento_server_instance_id": "instance_id",
    "evento_es_fetch_concurrency": "fetch_concurrency",
    "evento_server_heart_beat_interval": "lease",
    "evento_server_bus_port": "gateway",
    "socket_port": "gateway",
    "server_port": "http",
    "spring_datasource_url": "store",
    "spring_datasource_username": "store",
    "spring_datasource_password": "store",
}
"""Original key to setting; both spelled with underscores."""

GONE: Final = {
    "evento_es_mode": "the event store is consistent and ordered always (what CPES was); APES, which gave the order "
    "up, does not exist here",
    "evento_es_fetch_delay": "it hid fresh events while their order was unsettled (APES); here the order is final at "
    "once",
    "evento_es_fetch_max_age_ms": _BY_DEADLINE,
    "evento_es_aggregate_events_cache_expiry": _NO_CACHE,
    "evento_es_aggregate_events_cache_size": _NO_CACHE,
    "evento_es_aggregate_state_cache_expiry": _NO_CACHE,
    "evento_es_aggregate_state_cache_size": _NO_CACHE,
    "evento_security_signing_key": "it signed tokens of uploaded bundles; 'evento token create' makes them here",
    "evento_file_upload_dir": _NO_UPLOADS,
    "evento_deploy_spawn_script": _NO_UPLOADS,
    "evento_performance_capture_rate": "every message is counted: it costs no database work here",
    "evento_telemetry_ttl": "the server stores no samples: Prometheus reads /metrics and keeps what it reads",
    "evento_server_bus_auth_token": "each bundle has a token of its own: 'evento token create BUNDLE'",
    "evento_server_web_cors_allowed_origins": "no web page of another origin has anything to ask the server for",
    "evento_server_bus_business_executor_core_size": _NO_POOL,
    "evento_server_bus_business_executor_max_size": _NO_POOL,
    "evento_server_bus_business_executor_queue_capacity": _NO_POOL,
    "evento_server_bus_business_executor_saturation_warn_interval": _NO_POOL,
    "spring_security_user_name": _NO_USERS,
    "spring_security_user_password": _NO_USERS,
    "spring_security_user_roles": _NO_USERS,
    "evento_server_disable_delay_millis": "SIGTERM drains; shutdown_timeout bounds it",
    "evento_server_max_disable_attempts": "SIGTERM drains; shutdown_timeout bounds it",
    "evento_server_correlation_check_interval": _BY_DEADLINE,
    "evento_server_send_retry_max_attempts": _OF_NATS,
    "evento_server_send_retry_delay_millis": _OF_NATS,
}
"""Original key to the sentence that says why it is gone."""


def normalised(key: str) -> str:
    """Return an original key, dotted or as a variable, as the tables above spell it."""
    return re.sub(r"[.\-]", "_", key).lower()


def verdict(key: str) -> str | None:
    """Return what became of a key of the original; None when it had no such key.

    ``key`` may lack the prefix ``evento.es.``, as the keys of a table ``[es]`` do.
    """
    for name in (normalised(key), f"evento_es_{normalised(key)}", f"evento_{normalised(key)}"):
        if name in GONE:
            return GONE[name]
        if name in RENAMED:
            return f"it is called {RENAMED[name]!r} here"
    return None
