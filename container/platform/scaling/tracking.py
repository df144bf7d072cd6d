"""The alarms that Application Auto Scaling makes for a target tracking policy, as AWS makes them.

Source: alarms of real policies, as others show them: three periods above the target, 15 minutes below nine tenths of it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from container.platform.metrics import MetricName
from container.platform.scaling import arithmetic
from container.platform.scaling.alarms import Rule
from container.platform.scaling.formulas import Formula, FormulaInvalid, Part
from container.platform.scaling.records import Policy

HIGH_PERIODS = 3
LOW_S = 900


def rules(policy: Policy, arn: Callable[[str], str], names: Sequence[str] = ()) -> list[Rule]:
    """High, and low unless scaling in is disabled. `names` are those they had before, else new ones."""
    metric, statistic, period_s = _watched(policy)
    value = float(policy.config["TargetValue"])
    kinds = [("AlarmHigh", HIGH_PERIODS, value, "GreaterThanThreshold")]
    if not policy.config.get("DisableScaleIn"):
        kinds.append(("AlarmLow", LOW_S // period_s, value * arithmetic.LOW_SHARE, "LessThanThreshold"))
    given = names or [f"TargetTracking-{policy.address.resource_id}-{kind[0]}-{uuid.uuid4()}" for kind in kinds]
    return [
        Rule(
            name,
            arn(name),
            metric,
            statistic,
            period_s,
            n_periods,
            n_periods,
            threshold,
            comparison,
            alarm_actions=(policy.arn,),
            description=f"DO NOT EDIT OR DELETE. For TargetTrackingScaling policy {policy.arn}.",
        )
        for name, (_, n_periods, threshold, comparison) in zip(given, kinds, strict=True)
    ]


def formula_of(queries: Sequence[Mapping[str, Any]]) -> Formula:
    """What a customized metric of several comes to. Raises FormulaInvalid."""
    parts, expressions, shown = {}, {}, []
    for query in queries:
        id = query["Id"]
        if id in parts or id in expressions:
            raise FormulaInvalid(f"{id!r} is the id of two")
        if ("Expression" in query) == ("MetricStat" in query):
            raise FormulaInvalid(f"{id!r} needs one of Expression and MetricStat")
        if "Expression" in query:
            expressions[id] = query["Expression"]
        else:
            stat = query["MetricStat"]
            metric = stat["Metric"]
            dimensions = {one["Name"]: one["Value"] for one in metric.get("Dimensions", [])}
            name = MetricName.of(metric["Namespace"], metric["MetricName"], dimensions)
            parts[id] = Part(name, stat["Stat"])
        if query.get("ReturnData", True):
            shown.append(id)
    if len(shown) != 1:
        raise FormulaInvalid(f"exactly one of the metrics has ReturnData, not {len(shown)}")
    return Formula(parts, expressions, shown[0])


def _watched(policy: Policy) -> tuple[MetricName | Formula, str, int]:
    """(metric, statistic, period)."""
    config = policy.config
    if "PredefinedMetricSpecification" in config:
        kind = config["PredefinedMetricSpecification"]["PredefinedMetricType"]
        name, statistic, period_s = policy.address.kind.metrics[kind]
        return MetricName.of("AWS/SageMaker", name, policy.address.dimensions), statistic, period_s
    custom = config["CustomizedMetricSpecification"]
    if "Metrics" in custom:
        return formula_of(custom["Metrics"]), "", 60
    dimensions = {one["Name"]: one["Value"] for one in custom.get("Dimensions", [])}
    return MetricName.of(custom["Namespace"], custom["MetricName"], dimensions), custom["Statistic"], 60
