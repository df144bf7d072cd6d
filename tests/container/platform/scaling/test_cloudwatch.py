"""CloudWatch's API over our figures and alarms, asked by plain boto3."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from container.platform.clock import ManualClock
from container.platform.metrics import MetricName
from container.platform.platform import Platform
from tests.rig.platform import client, platform

METRIC = {"Namespace": "AWS/SageMaker", "MetricName": "Invocation4XXErrors"}
GREEN = [{"Name": "EndpointName", "Value": "shop"}, {"Name": "VariantName", "Value": "green"}]
MIDNIGHT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def played() -> Iterator[Any]:
    with platform(clock=ManualClock(MIDNIGHT)) as running:
        yield running


@pytest.fixture(scope="module")
def cloudwatch(played: Any) -> Any:
    return client(played.url, "cloudwatch")


def test_what_the_platform_writes_is_seen_and_what_a_client_writes_too(played: Any, cloudwatch: Any) -> None:
    played.metrics.put(*METRIC.values(), {one["Name"]: one["Value"] for one in GREEN}, 2, "Count")
    at = MIDNIGHT + datetime.timedelta(seconds=70)
    cloudwatch.put_metric_data(
        Namespace=METRIC["Namespace"],
        MetricData=[
            {
                "MetricName": METRIC["MetricName"],
                "Dimensions": GREEN,
                "Timestamp": at,
                "Values": [1, 5],
                "Counts": [3, 1],
            }
        ],
    )
    span = {"StartTime": MIDNIGHT, "EndTime": MIDNIGHT + datetime.timedelta(minutes=5)}
    found = cloudwatch.get_metric_statistics(
        **METRIC, **span, Dimensions=GREEN, Period=60, Statistics=["Sum", "Maximum", "SampleCount"]
    )["Datapoints"]
    assert [(one["Timestamp"], one["Sum"], one["Maximum"], one["SampleCount"]) for one in found] == [
        (MIDNIGHT, 2, 2, 1),
        (MIDNIGHT + datetime.timedelta(minutes=1), 8, 5, 4),
    ]
    stat = {"Metric": {**METRIC, "Dimensions": GREEN}, "Period": 60, "Stat": "Sum"}
    data = cloudwatch.get_metric_data(
        MetricDataQueries=[
            {"Id": "errors", "MetricStat": stat},
            {"Id": "p50", "MetricStat": {**stat, "Stat": "p50"}, "ReturnData": False},
        ],
        **span,
        ScanBy="TimestampAscending",
    )["MetricDataResults"]
    assert [(one["Id"], one["Values"]) for one in data] == [("errors", [2, 8])]
    assert [one["Dimensions"] for one in cloudwatch.list_metrics(**METRIC)["Metrics"]] == [GREEN]


def test_other_dimensions_are_another_metric(played: Any, cloudwatch: Any) -> None:
    played.metrics.put("Shop", "Sold", {"City": "Houston", "Street": "Main"}, 1)
    span = {"StartTime": MIDNIGHT, "EndTime": MIDNIGHT + datetime.timedelta(days=1)}
    found = cloudwatch.get_metric_statistics(
        Namespace="Shop",
        MetricName="Sold",
        Dimensions=[{"Name": "City", "Value": "Houston"}],
        Period=60,
        Statistics=["Sum"],
        **span,
    )
    assert found["Datapoints"] == []


def test_an_alarm_is_put_evaluated_shown_silenced_and_deleted(played: Any, cloudwatch: Any) -> None:
    cloudwatch.put_metric_alarm(
        AlarmName="errors",
        Namespace="Shop",
        MetricName="Errors",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=2,
        DatapointsToAlarm=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="notBreaching",
    )

    def shown() -> Any:
        return cloudwatch.describe_alarms(AlarmNames=["errors"])["MetricAlarms"][0]

    assert (shown()["StateValue"], shown()["ActionsEnabled"]) == ("INSUFFICIENT_DATA", True)
    played.metrics.put("Shop", "Errors", {}, 1)
    played.clock.advance(60)
    assert shown()["StateValue"] == "ALARM"
    assert shown()["StateReason"].startswith("Threshold Crossed: 1 datapoint(s) [1.0] was greater than or equal to")
    assert shown()["StateUpdatedTimestamp"] == played.clock.now()
    played.clock.advance(240)
    assert shown()["StateValue"] == "OK"
    cloudwatch.disable_alarm_actions(AlarmNames=["errors"])
    assert shown()["ActionsEnabled"] is False
    cloudwatch.set_alarm_state(AlarmName="errors", StateValue="ALARM", StateReason="a drill")
    assert [one["AlarmName"] for one in cloudwatch.describe_alarms(StateValue="ALARM")["MetricAlarms"]] == ["errors"]
    cloudwatch.delete_alarms(AlarmNames=["errors"])
    assert cloudwatch.describe_alarms(AlarmNames=["errors"])["MetricAlarms"] == []
    with pytest.raises(ClientError, match="ResourceNotFound"):
        cloudwatch.set_alarm_state(AlarmName="errors", StateValue="OK", StateReason="gone")


def stat(id: str, name: str, period_s: int = 60) -> dict[str, Any]:
    metric = {"Namespace": "Rates", "MetricName": name}
    return {"Id": id, "MetricStat": {"Metric": metric, "Period": period_s, "Stat": "Sum"}, "ReturnData": False}


RATE = [stat("failed", "Failed"), stat("all", "All"), {"Id": "rate", "Expression": "100 * FILL(failed, 0) / all"}]


def test_an_expression_is_worked_out_for_each_period(played: Any, cloudwatch: Any) -> None:
    start = played.clock.now()
    for failed, n in ((1, 4), (None, 5), (None, None), (3, 3)):
        for name, value in (("Failed", failed), ("All", n)):
            if value is not None:
                played.metrics.put("Rates", name, {}, value)
        played.clock.advance(60)
    data = cloudwatch.get_metric_data(
        MetricDataQueries=[{**RATE[0], "ReturnData": True}, *RATE[1:]],
        StartTime=start,
        EndTime=played.clock.now(),
        ScanBy="TimestampAscending",
    )["MetricDataResults"]
    assert {one["Id"]: one["Values"] for one in data} == {"failed": [1, 3], "rate": [25, 0, 100]}
    with pytest.raises(ClientError, match="does not play SEARCH"):
        cloudwatch.get_metric_data(
            MetricDataQueries=[*RATE[:2], {"Id": "e", "Expression": "SEARCH(all)"}],
            StartTime=start,
            EndTime=played.clock.now(),
        )


def test_an_alarm_on_a_rate_is_evaluated_and_shown_as_it_was_put(played: Any, cloudwatch: Any) -> None:
    cloudwatch.put_metric_alarm(
        AlarmName="rate",
        Metrics=[RATE[0], RATE[1], {**RATE[2], "ReturnData": True}],
        EvaluationPeriods=1,
        Threshold=50,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="notBreaching",
    )
    played.clock.advance(240)

    def shown() -> Any:
        return cloudwatch.describe_alarms(AlarmNames=["rate"])["MetricAlarms"][0]

    assert shown()["StateValue"] == "OK"
    played.metrics.put("Rates", "Failed", {}, 6)
    played.metrics.put("Rates", "All", {}, 10)
    played.clock.advance(60)
    assert shown()["StateValue"] == "ALARM"
    assert "[60.0]" in shown()["StateReason"]
    assert "MetricName" not in shown()
    told = {one["Id"]: one for one in shown()["Metrics"]}
    assert told["rate"]["Expression"] == RATE[2]["Expression"]
    assert told["failed"]["MetricStat"]["Metric"]["MetricName"] == "Failed"
    assert [id for id, one in told.items() if one["ReturnData"]] == ["rate"]
    cloudwatch.delete_alarms(AlarmNames=["rate"])


@pytest.mark.parametrize(
    ("metrics", "why"),
    [
        ([*RATE[:2], {"Id": "e", "Expression": "failed /"}], "ends too soon"),
        ([RATE[0], {"Id": "e", "Expression": "other"}], "is the id of nothing"),
        ([RATE[0], RATE[1]], "exactly one of Metrics"),
        ([RATE[0], stat("all", "All", 300), RATE[2]], "one and the same Period"),
        ([RATE[0], RATE[0], {"Id": "e", "Expression": "failed"}], "is the id of two"),
    ],
)
def test_an_expression_that_cannot_be_worked_out_makes_no_alarm(cloudwatch: Any, metrics: Any, why: str) -> None:
    with pytest.raises(ClientError, match=why):
        cloudwatch.put_metric_alarm(
            AlarmName="wrong",
            Metrics=metrics,
            EvaluationPeriods=1,
            Threshold=1,
            ComparisonOperator="GreaterThanThreshold",
        )
    assert cloudwatch.describe_alarms(AlarmNames=["wrong"])["MetricAlarms"] == []


@pytest.mark.parametrize(
    "wrong",
    [{"Period": 45}, {"DatapointsToAlarm": 3}, {"Statistic": None}, {"ExtendedStatistic": "tm90", "Statistic": None}],
)
def test_an_alarm_that_cannot_be_evaluated_is_refused(cloudwatch: Any, wrong: dict[str, Any]) -> None:
    given = {
        "AlarmName": "wrong",
        "Namespace": "Shop",
        "MetricName": "Errors",
        "Statistic": "Sum",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 1,
        "ComparisonOperator": "GreaterThanThreshold",
        **wrong,
    }
    with pytest.raises(ClientError):
        cloudwatch.put_metric_alarm(**{name: value for name, value in given.items() if value is not None})
    assert cloudwatch.describe_alarms(AlarmNames=["wrong"])["MetricAlarms"] == []


def test_dashboards_are_motos(cloudwatch: Any) -> None:
    cloudwatch.put_dashboard(DashboardName="shop", DashboardBody='{"widgets": []}')
    assert [one["DashboardName"] for one in cloudwatch.list_dashboards()["DashboardEntries"]] == ["shop"]


def test_statistic_sets_are_added_up(played: Any, cloudwatch: Any) -> None:
    stats = {"SampleCount": 4, "Sum": 10, "Minimum": 1, "Maximum": 5}
    cloudwatch.put_metric_data(Namespace="Shop", MetricData=[{"MetricName": "Sets", "StatisticValues": stats}] * 2)
    second = int(played.clock.now().timestamp())
    metric = MetricName.of("Shop", "Sets", {})
    seen = {name: played.metrics.value(metric, second, second + 1, name) for name in ("Sum", "Average", "Maximum")}
    assert seen == {"Sum": 20, "Average": 2.5, "Maximum": 5}


def test_the_default_account_is_answered_as_any_other() -> None:
    with Platform() as one:  # whose backend moto asks for CloudWatch's paths, whoever calls
        assert client(one.url, "cloudwatch").describe_alarms()["MetricAlarms"] == []
