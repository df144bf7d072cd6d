"""Dashboards and alarms that name only metrics which are reported, put into a CloudWatch that checks them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import boto3
import pytest
from moto import mock_aws

from container.metrics.dashboards import (
    Applied,
    CloudWatchRefused,
    apply_to_cloudwatch,
    cloudwatch_alarms,
    cloudwatch_dashboard,
    grafana_dashboard,
)
from container.metrics.prometheus import PrometheusExporter
from handler.telemetry.recorder import METRICS, LiveRecorder

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.client import CloudWatchClient

DIMENSIONS = {"EndpointName": "churn", "VariantName": "AllTraffic"}
DASHBOARD = cloudwatch_dashboard(namespace="MultiModelEndpoint", dimensions=DIMENSIONS, region="eu-west-1")
ALARMS = cloudwatch_alarms(
    namespace="MultiModelEndpoint", dimensions=DIMENSIONS, prefix="churn", actions=["arn:aws:sns:eu-west-1:1:night"]
)


@pytest.fixture
def cloudwatch(monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudWatchClient]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        yield boto3.client("cloudwatch", region_name="eu-west-1")


def test_every_widget_draws_a_metric_of_the_table_for_this_endpoint() -> None:
    names = {metric.name for metric in METRICS}
    lines = [line for widget in DASHBOARD["widgets"] for line in widget["properties"]["metrics"]]
    for namespace, name, *rest in lines:
        assert namespace == "MultiModelEndpoint"
        assert name in names
        assert rest[:4] == ["EndpointName", "churn", "VariantName", "AllTraffic"]
    assert {"LoadedModelCount", "ModelCacheHit", "ModelLoadingWaitTime", "ReloadsWithinMinutes"} <= {
        line[1] for line in lines
    }


def test_widgets_do_not_overlap() -> None:
    places = [(widget["x"], widget["y"]) for widget in DASHBOARD["widgets"]]
    assert len(set(places)) == len(places)
    assert all(widget["x"] + widget["width"] <= 24 for widget in DASHBOARD["widgets"])


def test_applying_makes_the_dashboard_and_the_alarms_and_twice_changes_nothing(cloudwatch: CloudWatchClient) -> None:
    for _ in range(2):
        applied = apply_to_cloudwatch(cloudwatch, "churn", DASHBOARD, ALARMS)
    assert applied == Applied(
        dashboard="churn",
        alarms=("churn-failing", "churn-thrashing", "churn-slow-loads", "churn-broken-artifacts", "churn-silent"),
        warnings=(),
    )
    assert json.loads(cloudwatch.get_dashboard(DashboardName="churn")["DashboardBody"]) == DASHBOARD
    alarms = {alarm["AlarmName"]: alarm for alarm in cloudwatch.describe_alarms()["MetricAlarms"]}
    assert set(alarms) == set(applied.alarms)
    failing = alarms["churn-failing"]
    assert (failing["MetricName"], failing["Statistic"], failing["Threshold"]) == (
        "Invocation5XXErrors",
        "Average",
        0.01,
    )
    assert failing["TreatMissingData"] == "notBreaching"
    assert alarms["churn-slow-loads"]["ExtendedStatistic"] == "p99"
    assert alarms["churn-silent"]["TreatMissingData"] == "breaching"
    ids = [query["Id"] for query in alarms["churn-thrashing"]["Metrics"]]
    assert ids == ["reloads", "loads", "share"]


def test_a_refusal_says_what_was_refused_and_why(cloudwatch: CloudWatchClient) -> None:
    broken = {**ALARMS[0], "EvaluationPeriods": "many"}
    with pytest.raises(CloudWatchRefused, match=r"(?s)alarm churn-failing: .*EvaluationPeriods"):
        apply_to_cloudwatch(cloudwatch, "churn", DASHBOARD, [broken])


def test_grafana_asks_only_for_series_that_are_exposed() -> None:
    recorder = LiveRecorder()
    for metric in METRICS:
        if metric.kind == "gauge":
            recorder.gauge(metric, lambda: 1)
    recorder.invocation("a", True, 2, 1, 200)
    text = PrometheusExporter(recorder).scrape()[0].decode()
    exposed = set(re.findall(r"^(mme_\w+)", text, re.MULTILINE))
    dashboard = grafana_dashboard()
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for query in queries for name in re.findall(r"mme_\w+", query)}
    assert asked <= exposed
    assert "histogram_quantile(0.99, sum by (le) (rate(mme_model_latency_seconds_bucket[5m])))" in queries
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    json.dumps(dashboard)
