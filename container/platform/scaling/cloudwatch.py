"""CloudWatch's API over the platform's figures and alarms: moto reads and writes, what is said is ours.

Rule: moto keeps dashboards, insight rules and tags; figures and metric alarms are kept in metrics.py and alarms.py alone.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping
from typing import Any

from moto.cloudwatch.exceptions import InvalidParameterValue, ValidationError
from moto.cloudwatch.exceptions import ResourceNotFound as AlarmMissing
from moto.cloudwatch.models import Alarm as ShownAlarm
from moto.cloudwatch.models import (
    CloudWatchBackend,
    Dimension,
    Metric,
    MetricDataQuery,
    MetricDatumBase,
    MetricStat,
    cloudwatch_backends,
)

from container.platform.metrics import STATISTICS, MetricName, Metrics, is_statistic
from container.platform.scaling.alarms import Alarm, Alarms, Rule
from container.platform.scaling.formulas import Formula, FormulaInvalid
from container.platform.scaling.tracking import formula_of

MAX_POINTS = 100_800  # of one GetMetricData. Source: its API reference


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
        results = {query["Id"]: self._series(query, start, end, scan_by) for query in queries if "MetricStat" in query}
        if any("Expression" in query for query in queries):
            results |= self._worked_out(queries, start, end, scan_by)
        return [results[query["Id"]] for query in queries if query.get("ReturnData", True)]

    def _worked_out(
        self, queries: list[dict[str, Any]], start: datetime.datetime, end: datetime.datetime, scan_by: str
    ) -> dict[str, Any]:
        """What expressions come to, in each period from start to end."""
        periods = {int(query["MetricStat"]["Period"]) for query in queries if "MetricStat" in query}
        if len(periods) != 1:
            raise ValidationError("mme platform works out expressions over metrics of one and the same Period")
        (period_s,) = periods
        first = int(start.timestamp()) // period_s * period_s
        spans = range(first, math.ceil(end.timestamp()), period_s)
        if len(spans) > MAX_POINTS:
            raise ValidationError(f"the range has {len(spans)} periods, more than {MAX_POINTS}")
        results = {}
        for query in queries:
            if "Expression" not in query:
                continue
            formula = _formula(queries, query["Id"])
            points = [
                (datetime.datetime.fromtimestamp(at, datetime.UTC), value)
                for at in (spans if scan_by == "TimestampAscending" else reversed(spans))
                if (value := formula.value(self.figures, at, at + period_s)) is not None
            ]
            label = query.get("Label") or query["Id"]
            results[query["Id"]] = _result(query, label, [value for _, value in points], [at for at, _ in points])
        return results

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
        except (ValueError, RecursionError) as error:
            raise InvalidParameterValue("StateReasonData is no JSON") from error
        self.ours.set_state(alarm_name, state_value, reason, reason_data or "{}")

    def _shown(self, alarm: Alarm) -> Any:
        rule, metric = alarm.rule, alarm.rule.metric
        one = None if isinstance(metric, Formula) else metric
        is_percentile = rule.statistic not in STATISTICS
        shown = ShownAlarm(
            account_id=self.account_id,
            region_name=self.region_name,
            name=rule.name,
            namespace=one.namespace if one else None,
            metric_name=one.name if one else None,
            metric_data_queries=_shown_queries(metric, rule.period_s) if isinstance(metric, Formula) else None,
            comparison_operator=rule.comparison,
            evaluation_periods=rule.n_periods,
            datapoints_to_alarm=rule.n_to_alarm,
            period=rule.period_s if one else None,
            threshold=rule.threshold,
            statistic=None if is_percentile else rule.statistic,
            extended_statistic=rule.statistic if one and is_percentile else None,
            description=rule.description,
            dimensions=_listed(one.dimensions) if one else [],
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
        return _math_rule(arn, given)
    statistic = given.get("statistic") or given.get("extended_statistic")
    missing = [
        name
        for name in ("namespace", "metric_name", "period", "threshold", "evaluation_periods")
        if given.get(name) is None
    ]
    if missing or not statistic:
        raise ValidationError(f"PutMetricAlarm needs {', '.join(missing) or 'Statistic or ExtendedStatistic'}")
    _check_statistic(statistic)
    metric = _metric(given["namespace"], given["metric_name"], given.get("dimensions"))
    return _watching(arn, given, metric, statistic, int(given["period"]))


def _math_rule(arn: str, given: Mapping[str, Any]) -> Rule:
    """Of what several metrics come to."""
    alone = [name for name in ("namespace", "metric_name", "period", "statistic", "dimensions") if given.get(name)]
    missing = [name for name in ("threshold", "evaluation_periods") if given.get(name) is None]
    if alone or missing:
        raise ValidationError(f"PutMetricAlarm with Metrics has no {alone[0]}" if alone else f"it needs {missing[0]}")
    queries = [_query(one) for one in given["metric_data_queries"]]
    shown = [one["Id"] for one in queries if one["ReturnData"]]
    periods = {int(one["MetricStat"]["Period"]) for one in queries if "MetricStat" in one}
    if len(shown) != 1 or len(periods) != 1:
        raise ValidationError("exactly one of Metrics has ReturnData true, and all have one and the same Period")
    return _watching(arn, given, _formula(queries, shown[0]), "", periods.pop())


def _query(one: Any) -> dict[str, Any]:
    """moto's, as GetMetricData has it."""
    told: dict[str, Any] = {"Id": one.id, "ReturnData": str(one.return_data).lower() != "false"}
    if one.expression is not None:
        return {**told, "Expression": one.expression}
    stat = one.metric_stat
    if stat is None:
        raise ValidationError(f"{one.id!r} needs one of Expression and MetricStat")
    metric = {
        "Namespace": stat.metric.namespace,
        "MetricName": stat.metric.metric_name,
        "Dimensions": [{"Name": each.name, "Value": each.value} for each in stat.metric.dimensions],
    }
    return {**told, "MetricStat": {"Metric": metric, "Period": stat.period, "Stat": stat.stat}}


def _formula(queries: list[dict[str, Any]], shown: str) -> Formula:
    """What one of the queries comes to. Raises ValidationError."""
    asked = [{**query, "ReturnData": query["Id"] == shown} for query in queries]
    for query in queries:
        if "MetricStat" in query:
            _check_statistic(query["MetricStat"]["Stat"])
    try:
        return formula_of(asked)
    except FormulaInvalid as error:
        raise ValidationError(f"Error in expression {shown!r}: {error}") from error


def _watching(arn: str, given: Mapping[str, Any], metric: MetricName | Formula, statistic: str, period_s: int) -> Rule:
    if period_s not in (10, 20, 30) and (period_s < 60 or period_s % 60):
        raise ValidationError("Metric alarm period must be 10, 20, 30 or any multiple of 60")
    n_periods = int(given["evaluation_periods"])
    n_to_alarm = int(given.get("datapoints_to_alarm") or n_periods)
    if not 1 <= n_to_alarm <= n_periods:
        raise ValidationError("DatapointsToAlarm must be between 1 and EvaluationPeriods")
    return Rule(
        given["name"],
        arn,
        metric,
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


def _shown_queries(formula: Formula, period_s: int) -> list[Any]:
    """As moto has them."""
    return [
        MetricDataQuery(
            id,
            None,
            None,
            id == formula.shown,
            metric_stat=MetricStat(
                Metric(
                    part.metric.name,
                    part.metric.namespace,
                    [Dimension(name, value) for name, value in part.metric.dimensions],
                ),
                period_s,
                part.statistic,
                None,
            ),
        )
        for id, part in formula.parts.items()
    ] + [
        MetricDataQuery(id, None, None, id == formula.shown, expression=text)
        for id, text in formula.expressions.items()
    ]


def _check_statistic(name: str) -> None:
    if not is_statistic(name):
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
