"""CloudWatch's API over the platform's figures and alarms: moto reads and writes, what is said is ours.

Rule: moto keeps dashboards, insight rules and tags; figures and metric alarms are kept in metrics.py and alarms.py alone.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any

from moto.cloudwatch.exceptions import InvalidParameterValue, ValidationError
from moto.cloudwatch.exceptions import ResourceNotFound as AlarmMissing
from moto.cloudwatch.metric_data_expression_parser import parse_expression
from moto.cloudwatch.models import Alarm as ShownAlarm
from moto.cloudwatch.models import CloudWatchBackend, MetricDatumBase, cloudwatch_backends

from container.platform.metrics import MetricName, Metrics
from container.platform.scaling.alarms import Alarm, Alarms, Rule

STATISTICS = {"Sum", "Average", "Minimum", "Maximum", "SampleCount"}


def install(account: str, metrics: Metrics, alarms: Alarms) -> None:
    """From now on moto's CloudWatch of an account, in every region, is the platform's."""

    def backend(region: str, account_id: str) -> PlatformCloudWatch:
        made = PlatformCloudWatch(region, account_id)
        made.figures, made.ours = metrics, alarms
        return made

    of_account = cloudwatch_backends[account]
    of_account.clear()
    of_account.backend = backend


class PlatformCloudWatch(CloudWatchBackend):  # type: ignore[misc]
    figures: Metrics
    ours: Alarms

    @property
    def _url_module(self) -> Any:
        # moto finds its paths beside the class, and asks the default account's backend of all for them.
        from moto.cloudwatch import urls

        return urls

    # Figures

    def put_metric_data(self, namespace: str, metric_data: list[dict[str, Any]]) -> None:
        for number, datum in enumerate(metric_data, 1):
            self._validate_parameters_put_metric_data(datum, number)
        for datum in metric_data:
            metric = _metric(namespace, datum["MetricName"], datum.get("Dimensions"))
            unit, at = datum.get("Unit"), _utc(datum.get("Timestamp"))
            if stats := datum.get("StatisticValues"):
                n, total, lowest, highest = (
                    float(stats[name]) for name in ("SampleCount", "Sum", "Minimum", "Maximum")
                )
                self.figures.put_set(metric, n, total, lowest, highest, unit, at)
                continue
            values = datum.get("Values") or [datum.get("Value", 0)]
            counts = datum.get("Counts") or [1] * len(values)
            for value, n in zip(values, counts, strict=True):
                self.figures.put(namespace, metric.name, dict(metric.dimensions), float(value), unit, at, float(n))

    def get_metric_statistics(
        self,
        namespace: str,
        metric_name: str,
        start_time: datetime.datetime,
        end_time: datetime.datetime,
        period: int,
        stats: list[str],
        dimensions: list[dict[str, str]],
        unit: str | None = None,
    ) -> list[dict[str, Any]]:
        start, end = _span(start_time, end_time)
        metric = _metric(namespace, metric_name, dimensions)
        points: dict[datetime.datetime, dict[str, Any]] = {}
        shown = unit or self.figures.units.get(metric, "None")
        if shown != self.figures.units.get(metric, shown):
            return []
        for stat in stats:
            for at, value in self.figures.query(
                namespace, metric_name, dict(metric.dimensions), start, end, period, stat
            ):
                points.setdefault(at, {"Timestamp": at, "Unit": shown})[stat] = value
        return [points[at] for at in sorted(points)]

    def get_metric_data(
        self,
        queries: list[dict[str, Any]],
        start_time: datetime.datetime,
        end_time: datetime.datetime,
        scan_by: str = "TimestampAscending",
    ) -> list[dict[str, Any]]:
        start, end = _span(start_time, end_time)
        results = {}
        for query in queries:
            if "MetricStat" in query:
                results[query["Id"]] = self._series(query, start, end, scan_by)
        for query in queries:
            if "Expression" in query:
                values, stamps = parse_expression(query["Expression"], list(results.values()))
                results[query["Id"]] = _result(query, query.get("Label") or query["Id"], values, stamps)
        return [results[query["Id"]] for query in queries if query.get("ReturnData", True)]

    def get_all_metrics(self) -> list[Any]:
        """For ListMetrics."""
        return [
            MetricDatumBase(one.namespace, one.name, _listed(one.dimensions), None, self.figures.units.get(one))
            for one in self.figures.names()
        ]

    def _series(self, query: Mapping[str, Any], start: Any, end: Any, scan_by: str) -> dict[str, Any]:
        asked = query["MetricStat"]
        given, stat = asked["Metric"], asked["Stat"]
        metric = _metric(given["Namespace"], given["MetricName"], given.get("Dimensions"))
        period_s = int(asked["Period"])
        _check_statistic(stat)
        points = self.figures.query(metric.namespace, metric.name, dict(metric.dimensions), start, end, period_s, stat)
        if scan_by == "TimestampDescending":
            points.reverse()
        label = query.get("Label") or f"{metric.name} {stat}"
        return _result(query, label, [value for _, value in points], [at for at, _ in points])

    # Alarms

    @property
    def alarms(self) -> dict[str, Any]:
        """As moto shows them."""
        return {one.rule.name: self._shown(one) for one in self.ours.all()}

    @alarms.setter
    def alarms(self, _: dict[str, Any]) -> None:
        """moto sets it to nothing when it makes a backend; ours are kept elsewhere."""

    def put_metric_alarm(self, *, tags: list[dict[str, str]] | None = None, **given: Any) -> Any:
        if given.get("rule"):
            raise ValidationError("mme platform does not evaluate composite alarms")
        rule = _rule(self.ours.arn(given["name"]), given)
        alarm = self.ours.put(rule)
        if tags:
            self.tagger.tag_resource(rule.arn, tags)
        return self._shown(alarm)

    def delete_alarms(self, alarm_names: list[str]) -> None:
        self.ours.delete(alarm_names)

    def enable_alarm_actions(self, alarm_names: list[str]) -> None:
        self.ours.enable(alarm_names, is_enabled=True)

    def disable_alarm_actions(self, alarm_names: list[str]) -> None:
        self.ours.enable(alarm_names, is_enabled=False)

    def set_alarm_state(self, alarm_name: str, reason: str, reason_data: str | None, state_value: Any) -> None:
        if self.ours.find(alarm_name) is None:
            raise AlarmMissing
        try:
            json.loads(reason_data or "{}")
        except ValueError as error:
            raise InvalidParameterValue("StateReasonData is no JSON") from error
        self.ours.set_state(alarm_name, state_value, reason, reason_data or "{}")

    def _shown(self, alarm: Alarm) -> Any:
        rule = alarm.rule
        is_percentile = rule.statistic not in STATISTICS
        shown = ShownAlarm(
            account_id=self.account_id,
            region_name=self.region_name,
            name=rule.name,
            namespace=rule.metric.namespace,
            metric_name=rule.metric.name,
            metric_data_queries=None,
            comparison_operator=rule.comparison,
            evaluation_periods=rule.n_periods,
            datapoints_to_alarm=rule.n_to_alarm,
            period=rule.period_s,
            threshold=rule.threshold,
            statistic=None if is_percentile else rule.statistic,
            extended_statistic=rule.statistic if is_percentile else None,
            description=rule.description,
            dimensions=_listed(rule.metric.dimensions),
            alarm_actions=list(rule.alarm_actions),
            ok_actions=list(rule.ok_actions),
            insufficient_data_actions=list(rule.insufficient_actions),
            unit=rule.unit,
            actions_enabled=rule.is_enabled,
            treat_missing_data=rule.missing,
            evaluate_low_sample_count_percentile=None,
            threshold_metric_id=None,
            rule=None,
        )
        shown.state_value, shown.state_reason, shown.state_reason_data = alarm.state, alarm.reason, alarm.reason_data
        shown.state_updated_timestamp, shown.configuration_updated_timestamp = alarm.since, alarm.created
        return shown


def _rule(arn: str, given: Mapping[str, Any]) -> Rule:
    """What PutMetricAlarm asks for. Raises ValidationError."""
    if given.get("metric_data_queries"):
        raise ValidationError("mme platform evaluates alarms on one metric, not on metric math")
    statistic = given.get("statistic") or given.get("extended_statistic")
    missing = [
        name
        for name in ("namespace", "metric_name", "period", "threshold", "evaluation_periods")
        if given.get(name) is None
    ]
    if missing or not statistic:
        raise ValidationError(f"PutMetricAlarm needs {', '.join(missing) or 'Statistic or ExtendedStatistic'}")
    _check_statistic(statistic)
    period_s = int(given["period"])
    if period_s not in (10, 20, 30) and (period_s < 60 or period_s % 60):
        raise ValidationError("Metric alarm period must be 10, 20, 30 or any multiple of 60")
    n_periods = int(given["evaluation_periods"])
    n_to_alarm = int(given.get("datapoints_to_alarm") or n_periods)
    if not 1 <= n_to_alarm <= n_periods:
        raise ValidationError("DatapointsToAlarm must be between 1 and EvaluationPeriods")
    return Rule(
        given["name"],
        arn,
        _metric(given["namespace"], given["metric_name"], given.get("dimensions")),
        statistic,
        period_s,
        n_periods,
        n_to_alarm,
        float(given["threshold"]),
        given["comparison_operator"],
        given.get("treat_missing_data") or "missing",
        tuple(given.get("alarm_actions") or ()),
        tuple(given.get("ok_actions") or ()),
        tuple(given.get("insufficient_data_actions") or ()),
        given.get("actions_enabled") is not False,
        given.get("description"),
        given.get("unit"),
    )


def _check_statistic(name: str) -> None:
    if name not in STATISTICS and not (name.startswith("p") and name[1:].replace(".", "", 1).isdecimal()):
        raise ValidationError(f"mme platform knows {', '.join(sorted(STATISTICS))} and percentiles, not {name}")


def _metric(namespace: str, name: str, dimensions: list[dict[str, str]] | None) -> MetricName:
    return MetricName.of(namespace, name, {one["Name"]: one["Value"] for one in dimensions or []})


def _listed(dimensions: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    return [{"Name": name, "Value": value} for name, value in dimensions]


def _span(start: datetime.datetime, end: datetime.datetime) -> tuple[datetime.datetime, datetime.datetime]:
    if start >= end:
        raise InvalidParameterValue("The parameter StartTime must be less than the parameter EndTime.")
    return _utc(start), _utc(end)  # type: ignore[return-value]


def _utc(when: datetime.datetime | None) -> datetime.datetime | None:
    """moto's times have no zone and mean UTC."""
    if when is None or when.tzinfo is not None:
        return when
    return when.replace(tzinfo=datetime.UTC)


def _result(query: Mapping[str, Any], label: str, values: Any, stamps: Any) -> dict[str, Any]:
    """As moto has one: its expressions read the same."""
    return {"id": query["Id"], "label": label, "values": values, "timestamps": stamps, "status_code": "Complete"}
