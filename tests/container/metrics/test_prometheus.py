"""Prometheus text that a Prometheus parser reads back as what was recorded."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from container.metrics.prometheus import PrometheusExporter, series_name
from handler.telemetry.recorder import (
    DOWNLOADED_BYTES,
    EVICTIONS,
    INVOCATION_4XX_ERRORS,
    LOADED_MODEL_COUNT,
    MEMORY_UTILIZATION,
    METRICS,
    MODEL_LATENCY,
    LiveRecorder,
)

LABELS = {"endpoint": "churn", "variant": "AllTraffic"}


def scrape(recorder: LiveRecorder) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text, content_type = PrometheusExporter(recorder, LABELS).scrape()
    assert content_type.startswith("text/plain")
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in parse_text(text.decode()):
        for sample in family.samples:
            own = frozenset(item for item in sample.labels.items() if item not in LABELS.items())
            assert (sample.name, own) not in found, "a series stands twice"
            found[sample.name, own] = sample.value
    return found


def test_names_follow_prometheus_habits() -> None:
    assert series_name(MODEL_LATENCY) == "mme_model_latency_seconds"
    assert series_name(INVOCATION_4XX_ERRORS) == "mme_invocation_4xx_errors"
    assert series_name(MEMORY_UTILIZATION) == "mme_memory_utilization_percent"
    assert series_name(DOWNLOADED_BYTES) == "mme_downloaded_bytes"
    assert len({series_name(metric) for metric in METRICS}) == len(METRICS)


def test_a_scrape_holds_what_was_recorded(recorder: LiveRecorder) -> None:
    recorder.gauge(LOADED_MODEL_COUNT, lambda: 12)
    for i in range(100):
        recorder.invocation("eu/a.tar.gz", i % 4 > 0, 1_000, 30 * i, 200)
    recorder.count(EVICTIONS, 3)
    found = scrape(recorder)
    none: frozenset[tuple[str, str]] = frozenset()
    model = frozenset({("model", "eu/a.tar.gz")})
    assert found["mme_invocations_total", none] == 100
    assert found["mme_evictions_total", none] == 3
    assert found["mme_loaded_model_count", none] == 12
    assert (found["mme_model_cache_hit_sum", none], found["mme_model_cache_hit_count", none]) == (75, 100)
    assert found["mme_model_latency_seconds_sum", none] == pytest.approx(30 * 4950 / 1e6)
    assert found["mme_model_latency_seconds_count", none] == 100
    assert found["mme_model_latency_seconds_bucket", frozenset({("le", "0.001")})] == sum(
        30 * i <= 1000 for i in range(100)
    )
    assert found["mme_model_latency_seconds_bucket", frozenset({("le", "+Inf")})] == 100
    assert (found["mme_model_requests_total", model], found["mme_model_hits_total", model]) == (100, 75)


def test_series_by_model_are_bounded_and_add_up_with_other(recorder: LiveRecorder) -> None:
    for i in range(4_000):
        recorder.invocation(f"m{i}", True, 10, 5, 200)
    recorder.invocation(None, None, 10, None, 400)
    found = scrape(recorder)
    rows = {labels: value for (name, labels), value in found.items() if name == "mme_model_requests_total"}
    assert len(rows) == 6  # five, and `other`
    assert sum(rows.values()) == 4_001


def test_a_name_that_is_no_text_cannot_spoil_the_scrape(recorder: LiveRecorder) -> None:
    recorder.invocation('x"}\n\udcff\\', True, 10, 5, 200)
    names = {dict(labels).get("model") for _, labels in scrape(recorder)}
    assert 'x"}\n\\udcff\\' in names


def test_a_scraper_may_ask_for_openmetrics(recorder: LiveRecorder) -> None:
    recorder.invocation("a", True, 10, 5, 200)
    text, content_type = PrometheusExporter(recorder).scrape("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert "mme_invocations" in {family.name for family in parse_openmetrics(text.decode())}
