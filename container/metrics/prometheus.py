"""Metrics as Prometheus text, read at the moment of the scrape.

Rule: nothing is kept here. Each scrape reads the recorder's running totals, which only grow, as Prometheus expects.
Names follow Prometheus's habits, base units included: `ModelLoadingTime` becomes `mme_model_loading_time_seconds`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector as CollectorInterface

from handler.telemetry.recorder import BOUNDS_US, METRICS, LiveRecorder, Metric, Totals
from handler.telemetry.traffic import ModelTraffic

PREFIX = "mme_"
# The bounds 1, 2 and 5 of each decade: a series for all 111 bounds would cost a scraper more than it tells.
SHOWN_BOUNDS = frozenset(bound for bound in BOUNDS_US if str(bound).rstrip("0") in {"1", "2", "5"})


class PrometheusExporter:
    """Answers scrapes. `labels` stand on every series (endpoint, variant)."""

    def __init__(self, recorder: LiveRecorder, labels: Mapping[str, str] | None = None) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Reading(recorder, dict(labels or {})))
        ProcessCollector(registry=self._registry)

    def scrape(self, accept: str = "") -> tuple[bytes, str]:
        """The text and its content type, in the format the scraper accepts."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Reading(CollectorInterface):
    def __init__(self, recorder: LiveRecorder, labels: dict[str, str]) -> None:
        self._recorder = recorder
        self._names = tuple(labels)
        self._values = tuple(labels.values())

    def collect(self) -> Iterator[Family]:
        totals = self._recorder.collect()
        for metric in METRICS:
            if metric.kind != "gauge":
                yield self._family(metric, totals)
            elif metric.name in totals.gauges:
                yield self._gauge(metric, totals.gauges[metric.name])
        yield from self._by_model(totals.traffic)

    def _gauge(self, metric: Metric, value: float) -> Family:
        family = GaugeMetricFamily(series_name(metric), metric.when, labels=self._names)
        family.add_metric(self._values, value)
        return family

    def _family(self, metric: Metric, totals: Totals) -> Family:
        name = series_name(metric)
        if metric.kind == "count":
            counter = CounterMetricFamily(name, metric.when, labels=self._names)
            counter.add_metric(self._values, totals.total(metric))
            return counter
        if metric.kind == "flag":
            summary = SummaryMetricFamily(name, metric.when, labels=self._names)
            summary.add_metric(self._values, count_value=totals.count(metric), sum_value=totals.total(metric))
            return summary
        histogram = HistogramMetricFamily(name, metric.when, labels=self._names)
        histogram.add_metric(self._values, _cumulative(metric, totals), totals.total(metric) / 1e6)
        return histogram

    def _by_model(self, traffic: tuple[ModelTraffic, ...]) -> Iterator[Family]:
        names = (*self._names, "model")
        requests = CounterMetricFamily(
            PREFIX + "model_requests", "Answered requests of the busiest models.", labels=names
        )
        hits = CounterMetricFamily(PREFIX + "model_hits", "Requests that found their model in memory.", labels=names)
        errors = CounterMetricFamily(PREFIX + "model_errors", "Requests answered with 400 or above.", labels=names)
        seconds = CounterMetricFamily(PREFIX + "model_busy_seconds", "Time spent on a model's requests.", labels=names)
        for row in traffic:
            # A name is whatever a caller sent; half a surrogate pair would make the whole scrape fail to encode.
            labels = (*self._values, row.model.encode("utf-8", "backslashreplace").decode())
            requests.add_metric(labels, row.requests)
            hits.add_metric(labels, row.hits)
            errors.add_metric(labels, row.errors)
            seconds.add_metric(labels, row.total_us / 1e6)
        yield from (requests, hits, errors, seconds)


def series_name(metric: Metric) -> str:
    """`Invocation4XXErrors` becomes `mme_invocation_4xx_errors`; times and bytes end in their unit."""
    words = re.findall(r"\d+XX|[A-Z]?[a-z]+", metric.name)
    name = PREFIX + "_".join(words).lower()
    if metric.unit == "Microseconds":
        return name + "_seconds"
    return name + "_percent" if metric.unit == "Percent" else name


def _cumulative(metric: Metric, totals: Totals) -> list[tuple[str, float]]:
    below = 0
    shown: list[tuple[str, float]] = []
    buckets = totals.buckets(metric)
    for bound_us, bucket in zip(BOUNDS_US, buckets, strict=False):
        below += bucket.count if bucket else 0
        if bound_us in SHOWN_BOUNDS:
            shown.append((repr(bound_us / 1e6), below))
    last = buckets[-1]
    return [*shown, ("+Inf", below + (last.count if last else 0))]
