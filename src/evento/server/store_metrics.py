"""The store service's counts as metrics."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from evento.server.store.counters import LATENCY_BUCKETS, StoreCounters

__all__ = ["store_metrics"]


def store_metrics(counters: StoreCounters) -> Iterator[Metric]:
    """Yield what the store service has done since the start."""
    yield GaugeMetricFamily("evento_store_head", "Position of the newest event that this server knows.", counters.head)
    yield GaugeMetricFamily("evento_store_requests_in_flight", "Requests under way.", counters.in_flight)
    for name, text, value in (
        ("appended_events", "Events that this server stored.", counters.appended),
        ("appended_bytes", "Bytes of events that this server stored.", counters.appended_bytes),
        ("fetched_events", "Events that consumers were given.", counters.fetched),
        ("refused_requests", "Requests that were refused as too many were under way.", counters.refused),
        (
            "expired_requests",
            "Requests not started, or given up, as their deadline had passed.",
            counters.expired,
        ),
    ):
        yield CounterMetricFamily(f"evento_store_{name}", text, value)
    for name, text, label, counts in (
        ("errors", "Requests that failed, by error.", "error", counters.errors),
        ("append_outcomes", "Appends by their outcome.", "outcome", counters.outcomes),
    ):
        family = CounterMetricFamily(f"evento_store_{name}", text, labels=[label])
        for key, count in list(counts.items()):
            family.add_metric([key], count)
        yield family
    yield _latencies(counters)


def _latencies(counters: StoreCounters) -> Metric:
    family = HistogramMetricFamily(
        "evento_store_request_seconds", "Time from a request's arrival to its answer.", labels=["operation"]
    )
    bounds = [*map(str, LATENCY_BUCKETS), "+Inf"]
    for operation, latencies in list(counters.latencies.items()):
        family.add_metric([operation], list(zip(bounds, accumulate(latencies.counts), strict=True)), latencies.seconds)
    return family
