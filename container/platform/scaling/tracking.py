"""The alarms that Application Auto Scaling makes for a target tracking policy, as AWS makes them.

Source: alarms of real policies, as others show them: three periods above the target, 15 minutes below nine tenths of it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

from container.platform.metrics import MetricName
from container.platform.scaling import arithmetic
from container.platform.scaling.alarms import Rule
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


def _watched(policy: Policy) -> tuple[MetricName, str, int]:
    """(metric, statistic, period)."""
    config = policy.config
    if "PredefinedMetricSpecification" in config:
        kind = config["PredefinedMetricSpecification"]["PredefinedMetricType"]
        name, statistic, period_s = policy.address.kind.metrics[kind]
        return MetricName.of("AWS/SageMaker", name, policy.address.dimensions), statistic, period_s
    custom = config["CustomizedMetricSpecification"]
    dimensions = {one["Name"]: one["Value"] for one in custom.get("Dimensions", [])}
    return MetricName.of(custom["Namespace"], custom["MetricName"], dimensions), custom["Statistic"], 60
