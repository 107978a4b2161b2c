"""What ``/metrics`` shows: counts of the gateway, the store and the bundles, in a registry of the server's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from evento.server.telemetry import Telemetry

__all__ = ["Metrics"]

Families = Callable[[], Iterator[Metric]]
"""Makes the metrics of one part, at each reading."""


class Metrics:
    """The metrics of one server.

    :param telemetry: what bundles told.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        *,
        info: Mapping[str, str],
        certificate_expires: datetime | None = None,
    ) -> None:
        self._telemetry = telemetry
        self._info = dict(info)
        self._expires = certificate_expires
        self._gateway: Mapping[str, Any] = {}
        self._parts: list[Families] = [self._own, self._of_gateway, self._of_bundles]
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._registry.register(_Parts(self._parts))

    def add(self, part: Families) -> None:
        """Show the metrics of one more part."""
        self._parts.append(part)

    def gateway(self, state: Mapping[str, Any]) -> None:
        """Show what nats-server said of itself last (``/varz``); an empty mapping when it said nothing."""
        self._gateway = state

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)

    def _own(self) -> Iterator[Metric]:
        yield InfoMetricFamily("evento_server", "This server.", value=self._info)
        if self._expires is not None:
            yield GaugeMetricFamily(
                "evento_tls_certificate_expires_timestamp_seconds",
                "Until when the TLS certificate holds, in seconds since 1970.",
                value=self._expires.timestamp(),
            )

    def _of_gateway(self) -> Iterator[Metric]:
        state = self._gateway
        yield GaugeMetricFamily("evento_gateway_up", "Whether nats-server answers.", value=float(bool(state)))
        if not state:
            return
        yield GaugeMetricFamily("evento_gateway_connections", "Connections now.", value=state.get("connections", 0))
        yield GaugeMetricFamily("evento_gateway_routes", "Connections to other nodes.", value=state.get("routes", 0))
        yield GaugeMetricFamily("evento_gateway_memory_bytes", "Memory of nats-server.", value=state.get("mem", 0))
        for what, name, text in (
            ("msgs", "messages", "Messages by direction, as nats-server sees it."),
            ("bytes", "bytes", "Bytes of messages by direction, as nats-server sees it."),
        ):
            family = CounterMetricFamily(f"evento_gateway_{name}", text, labels=["direction"])
            for direction in ("in", "out"):
                family.add_metric([direction], state.get(f"{direction}_{what}", 0))
            yield family
        yield CounterMetricFamily(
            "evento_gateway_restarts", "Starts of nats-server after it had died.", value=state.get("restarts", 0)
        )
        yield CounterMetricFamily(
            "evento_gateway_slow_consumers",
            "Connections that were closed as they read too slowly.",
            value=state.get("slow_consumers", 0),
        )

    def _of_bundles(self) -> Iterator[Metric]:
        instances = GaugeMetricFamily(
            "evento_instances", "Instances of bundles by their state.", labels=["bundle", "state"]
        )
        for bundle, counts in self._telemetry.instances.items():
            instances.add_metric([bundle, "enabled"], counts.enabled)
            instances.add_metric([bundle, "disabled"], counts.live - counts.enabled)
        yield instances
        yield from self._of_handlers()
        yield from self._of_consumers()

    def _of_handlers(self) -> Iterator[Metric]:
        labels = ["bundle", "handler", "payload"]
        seconds = SummaryMetricFamily("evento_handler_seconds", "Runs of handlers and their time.", labels=labels)
        failures = CounterMetricFamily("evento_handler_failures", "Runs of handlers that failed.", labels=labels)
        slowest = GaugeMetricFamily(
            "evento_handler_slowest_seconds", "Time of the slowest run of the last minute.", labels=labels
        )
        for key, handled in self._telemetry.handlers():
            seconds.add_metric(list(key), count_value=handled.number, sum_value=handled.seconds)
            failures.add_metric(list(key), handled.failed)
            slowest.add_metric(list(key), handled.slowest(self._telemetry.clock()))
        yield from (seconds, failures, slowest)

    def _of_consumers(self) -> Iterator[Metric]:
        labels = ["bundle", "component", "version", "context"]
        lag = GaugeMetricFamily("evento_consumer_lag_events", "Positions behind the head.", labels=labels)
        age = GaugeMetricFamily("evento_consumer_lag_seconds", "Age of the next event to handle.", labels=labels)
        dead = GaugeMetricFamily("evento_consumer_dead_events", "Events in the dead event queue.", labels=labels)
        waiting = GaugeMetricFamily(
            "evento_consumer_waiting_events", "Events that wait behind dead ones.", labels=labels
        )
        position = GaugeMetricFamily("evento_consumer_position", "The committed checkpoint.", labels=labels)
        doing = GaugeMetricFamily(
            "evento_consumer_state",
            "1 for what the consumer is doing: running, retrying or paused.",
            labels=[*labels, "state"],
        )
        for key, state in self._telemetry.consumers():
            values = [str(part) for part in key]
            position.add_metric(values, state.position)
            doing.add_metric([*values, state.state], 1)
            lag.add_metric(values, state.lag_events)
            dead.add_metric(values, state.dead)
            waiting.add_metric(values, state.waiting)
            if state.lag_seconds is not None:
                age.add_metric(values, state.lag_seconds)
        yield from (lag, age, dead, waiting, position, doing)


class _Parts(Collector):
    def __init__(self, parts: list[Families]) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        for part in self._parts:
            yield from part()
