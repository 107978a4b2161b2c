"""The settings of a bundle, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from evento.bundle.executors import ConsumerExecutor, ThreadExecutor
from evento.components import Interceptor, TracingAgent
from evento.errors import DefinitionError

__all__ = ["BundleSettings"]


@dataclass(frozen=True, slots=True)
class BundleSettings:
    """What ``EventoBundle`` was given, in the form that its parts use."""

    bundle_id: str
    version: int
    description: str
    detail: str
    repository_url: str
    line_prefix: str
    consumer_state_store: str | None
    contexts: dict[type, Sequence[str]]
    tracing: TracingAgent | None
    interceptors: tuple[Interceptor, ...]
    executors: tuple[ThreadExecutor | ConsumerExecutor, ...]
    fetch_size: int
    fetch_delay: timedelta
    handler_grace: float
    max_in_flight_requests: int
    max_concurrent_handlers: int
    max_payload_bytes: int
    state_cache_size: int
    state_cache_expiry: timedelta

    def check(self) -> None:
        """Raise :class:`DefinitionError` for a value that cannot work."""
        if not isinstance(self.bundle_id, str) or not 0 < len(self.bundle_id) <= 200:
            raise DefinitionError(f"bundle_id must be a str of 1 to 200 characters, not {self.bundle_id!r:.80}")
        for name in ("fetch_size", "max_in_flight_requests", "max_concurrent_handlers", "max_payload_bytes"):
            if getattr(self, name) < 1:
                raise DefinitionError(f"{name} must be at least 1, not {getattr(self, name)!r}")
        if self.fetch_delay < timedelta(milliseconds=1):
            raise DefinitionError("sss_fetch_delay must be at least one millisecond")
        if self.state_cache_size < 0:
            raise DefinitionError("state_cache_size must be 0 (no cache) or more")
        for cls, names in self.contexts.items():
            if isinstance(names, str) or not names:
                raise DefinitionError(
                    f"contexts of {getattr(cls, '__name__', cls)} must be a list of at least one name, not {names!r}"
                )
