"""Dashboards and alarms made from the table of metrics, for CloudWatch and for Grafana.

Rule: a widget names a metric by its row in `handler/telemetry/recorder.py`, never by a string of its own, so that none can
point at a metric that nobody reports.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from container.metrics.datapoints import dimension_values
from container.metrics.prometheus import PREFIX, series_name
from container.metrics.status import FAILING_SHARE, THRASHING_MIN, THRASHING_SHARE
from handler.telemetry.recorder import (
    AGE_AT_EVICTION,
    BROKEN_ARTIFACTS,
    DOWNLOADED_BYTES,
    EVICTIONS,
    INVOCATION_4XX_ERRORS,
    INVOCATION_5XX_ERRORS,
    INVOCATIONS,
    LOADED_MODEL_COUNT,
    MEMORY_UTILIZATION,
    MODEL_CACHE_HIT,
    MODEL_DOWNLOADING_TIME,
    MODEL_LATENCY,
    MODEL_LOADING_TIME,
    MODEL_LOADING_WAIT_TIME,
    MODEL_NOT_READY,
    OVERHEAD_LATENCY,
    QUEUE_DEPTH,
    RELOADS_WITHIN_MINUTES,
    Metric,
)

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.client import CloudWatchClient

Json = dict[str, Any]

PERIOD_S = 60
SLOW_WAIT_US = 30_000_000  # half of the 60 s that InvokeEndpoint allows


class CloudWatchRefused(Exception):
    """CloudWatch did not take a dashboard or an alarm. `what` names it, `why` is CloudWatch's own reason."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"CloudWatch refused {what}: {why}")
        self.what = what
        self.why = why


@dataclass(frozen=True, slots=True)
class Applied:
    """What now exists. `warnings` are CloudWatch's remarks about a dashboard that it took all the same."""

    dashboard: str
    alarms: tuple[str, ...]
    warnings: tuple[str, ...]


# One panel: its title and its lines; a line is a metric and the statistic to draw. Both dashboards are drawn from this.
Line = tuple[Metric, str]
PANELS: tuple[tuple[str, tuple[Line, ...]], ...] = (
    ("Loaded models", ((LOADED_MODEL_COUNT, "Average"),)),
    ("Cache hit ratio", ((MODEL_CACHE_HIT, "Average"),)),
    ("Invocations", ((INVOCATIONS, "Sum"),)),
    ("Model latency", ((MODEL_LATENCY, "p50"), (MODEL_LATENCY, "p99"))),
    ("Overhead latency", ((OVERHEAD_LATENCY, "p50"), (OVERHEAD_LATENCY, "p99"))),
    ("Errors (share of invocations)", ((INVOCATION_4XX_ERRORS, "Average"), (INVOCATION_5XX_ERRORS, "Average"))),
    (
        "From S3 to memory (p99)",
        ((MODEL_LOADING_WAIT_TIME, "p99"), (MODEL_DOWNLOADING_TIME, "p99"), (MODEL_LOADING_TIME, "p99")),
    ),
    ("Evictions and reloads", ((EVICTIONS, "Sum"), (RELOADS_WITHIN_MINUTES, "Sum"))),
    ("Age at eviction", ((AGE_AT_EVICTION, "p50"),)),
    ("Memory for models (percent of budget)", ((MEMORY_UTILIZATION, "Maximum"),)),
    ("Waiting and not ready", ((QUEUE_DEPTH, "Maximum"), (MODEL_NOT_READY, "Sum"))),
    ("Downloaded, and found broken", ((DOWNLOADED_BYTES, "Sum"), (BROKEN_ARTIFACTS, "Sum"))),
)


def cloudwatch_dashboard(*, namespace: str, dimensions: Mapping[str, str], region: str) -> Json:
    """The body of a CloudWatch dashboard: the panels two abreast, one minute a point."""
    widgets = [
        {
            "type": "metric",
            "x": 12 * (i % 2),
            "y": 6 * (i // 2),
            "width": 12,
            "height": 6,
            "properties": {
                "title": title,
                "region": region,
                "view": "timeSeries",
                "period": PERIOD_S,
                "metrics": [
                    [
                        namespace,
                        metric.name,
                        *_flat(dimension_values(dimensions)),
                        {"stat": statistic, "label": f"{metric.name} {statistic}"},
                    ]
                    for metric, statistic in lines
                ],
                "yAxis": {"left": {"min": 0}},
            },
        }
        for i, (title, lines) in enumerate(PANELS)
    ]
    return {"widgets": widgets}


def cloudwatch_alarms(
    *, namespace: str, dimensions: Mapping[str, str], prefix: str, actions: Sequence[str] = ()
) -> list[Json]:
    """Arguments of PutMetricAlarm, one per thing worth waking somebody for. `actions` are SNS topics and the like."""

    def stat(identity: str, metric: Metric, statistic: str) -> Json:
        return {
            "Id": identity,
            "ReturnData": False,
            "MetricStat": {"Metric": _metric(namespace, metric, dimensions), "Period": PERIOD_S, "Stat": statistic},
        }

    def alarm(name: str, why: str, **rest: Any) -> Json:
        usual = {"EvaluationPeriods": 5, "DatapointsToAlarm": 3, "TreatMissingData": "notBreaching"}
        return {
            "AlarmName": f"{prefix}-{name}",
            "AlarmDescription": why,
            "AlarmActions": list(actions),
            "OKActions": list(actions),
            **usual,
            **rest,
        }

    def simple(metric: Metric, statistic: str, threshold: float) -> Json:
        of = {"ExtendedStatistic": statistic} if statistic.startswith("p") else {"Statistic": statistic}
        renamed = {"Namespace": namespace, "MetricName": metric.name, "Dimensions": _pairs(dimensions)}
        compared = {"Threshold": threshold, "ComparisonOperator": "GreaterThanOrEqualToThreshold"}
        return {**renamed, **of, **compared, "Period": PERIOD_S}

    return [
        alarm(
            "failing",
            f"{FAILING_SHARE:.0%} of invocations or more fail in the container (5xx).",
            **simple(INVOCATION_5XX_ERRORS, "Average", FAILING_SHARE),
        ),
        alarm(
            "thrashing",
            f"{THRASHING_SHARE:.0%} of loads or more bring back a model evicted within five minutes: "
            "the memory budget is too small for the models in use.",
            ComparisonOperator="GreaterThanOrEqualToThreshold",
            Threshold=THRASHING_SHARE,
            Metrics=[
                stat("reloads", RELOADS_WITHIN_MINUTES, "Sum"),
                stat("loads", MODEL_LOADING_TIME, "SampleCount"),
                # Five quiet minutes hold as many reloads as the status page asks for before it says so.
                {
                    "Id": "share",
                    "Expression": f"IF(reloads >= {THRASHING_MIN // 5}, reloads / loads, 0)",
                    "Label": "share of loads that are reloads",
                    "ReturnData": True,
                },
            ],
        ),
        alarm(
            "slow-loads",
            "The slowest hundredth of cold invocations wait 30 s or more for their model; SageMaker gives up at 60 s.",
            **simple(MODEL_LOADING_WAIT_TIME, "p99", SLOW_WAIT_US),
        ),
        alarm(
            "broken-artifacts",
            "An artifact that is damaged or no model was named: somebody published it.",
            **simple(BROKEN_ARTIFACTS, "Sum", 1),
            EvaluationPeriods=1,
            DatapointsToAlarm=1,
        ),
        alarm(
            "silent",
            "No report has come for five minutes; an idle container still reports zero invocations every minute.",
            **{**simple(INVOCATIONS, "SampleCount", 1), "ComparisonOperator": "LessThanThreshold"},
            DatapointsToAlarm=5,
            TreatMissingData="breaching",
        ),
    ]


def apply_to_cloudwatch(client: CloudWatchClient, name: str, dashboard: Json, alarms: Sequence[Json]) -> Applied:
    """Create or replace the dashboard and the alarms; a second call with the same arguments changes nothing.

    raises  CloudWatchRefused; what was put before stays
    """
    try:
        answer = client.put_dashboard(DashboardName=name, DashboardBody=json.dumps(dashboard))
    except (ClientError, BotoCoreError) as error:
        raise CloudWatchRefused(f"dashboard {name}", str(error)) from error
    for alarm in alarms:
        try:
            client.put_metric_alarm(**alarm)
        except (ClientError, BotoCoreError) as error:
            raise CloudWatchRefused(f"alarm {alarm['AlarmName']}", str(error)) from error
    remarks = answer.get("DashboardValidationMessages", [])
    return Applied(
        dashboard=name,
        alarms=tuple(alarm["AlarmName"] for alarm in alarms),
        warnings=tuple(remark.get("Message", "") for remark in remarks),
    )


def grafana_dashboard(*, title: str = "Multi-model endpoint") -> Json:
    """A Grafana dashboard over the Prometheus series, to be imported; it asks for its data source."""
    panels = [
        _grafana_panel(
            i,
            name,
            [(_promql(metric, statistic), f"{metric.name} {statistic}") for metric, statistic in lines],
            _unit(lines[0]),
        )
        for i, (name, lines) in enumerate(PANELS)
    ]
    busiest = f"topk(10, sum by (model) (rate({PREFIX}model_requests_total[5m])))"
    panels.append(_grafana_panel(len(panels), "Busiest models", [(busiest, "{{model}}")], "reqps"))
    return {
        "title": title,
        "uid": "multi-model-endpoint",
        "schemaVersion": 39,
        "tags": ["multi-model-endpoint"],
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "templating": {
            "list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "panels": panels,
    }


def _grafana_panel(i: int, title: str, queries: Sequence[tuple[str, str]], unit: str) -> Json:
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "id": i + 1,
        "type": "timeseries",
        "title": title,
        "datasource": source,
        "gridPos": {"x": 12 * (i % 2), "y": 8 * (i // 2), "w": 12, "h": 8},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": source, "expr": expression, "legendFormat": legend}
            for n, (expression, legend) in enumerate(queries)
        ],
    }


def _promql(metric: Metric, statistic: str) -> str:
    name = series_name(metric)
    match metric.kind:
        case "gauge":
            return f"sum({name})" if metric is LOADED_MODEL_COUNT else f"max({name})"
        case "count":
            return f"sum(rate({name}_total[5m]))"
        case "flag":
            return f"sum(rate({name}_sum[5m])) / sum(rate({name}_count[5m]))"
        case "time":
            share = float(statistic.removeprefix("p")) / 100
            return f"histogram_quantile({share:g}, sum by (le) (rate({name}_bucket[5m])))"


def _unit(line: Line) -> str:
    metric, _ = line
    if metric.kind == "time":
        return "s"
    if metric.kind == "flag":
        return "percentunit"
    if metric.unit == "Bytes":
        return "Bps" if metric.kind == "count" else "bytes"
    return {"Percent": "percent"}.get(metric.unit, "cps" if metric.kind == "count" else "short")


def _metric(namespace: str, metric: Metric, dimensions: Mapping[str, str]) -> Json:
    return {"Namespace": namespace, "MetricName": metric.name, "Dimensions": _pairs(dimensions)}


def _pairs(dimensions: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Name": name, "Value": value} for name, value in dimension_values(dimensions).items()]


def _flat(dimensions: Mapping[str, str]) -> list[str]:
    return [word for pair in dimensions.items() for word in pair]
