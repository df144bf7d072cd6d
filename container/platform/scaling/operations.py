"""Application Auto Scaling's operations, from a call's words to autoscaling.py and back.

Rule: nothing is decided here but what a request may say.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from container.platform.clock import Clock
from container.platform.metrics import is_statistic
from container.platform.scaling import tracking
from container.platform.scaling.alarms import Alarms
from container.platform.scaling.arithmetic import steps_wrong
from container.platform.scaling.autoscaling import AutoScaling
from container.platform.scaling.formulas import FormulaInvalid
from container.platform.scaling.records import SUSPENDED, Action, Activity, Policy, Target
from container.platform.scaling.resources import NAMESPACE, Address, address
from container.platform.scaling.schedules import ScheduleInvalid, parse
from container.platform.service.call import Call, Operation
from container.platform.service.faults import NotPlayed, ServiceFault, ValidationException
from container.platform.service.pages import page

SERVICE = "application-autoscaling"
DEFAULT_RESULTS = 50
MAX_STEPS = 20  # of one step policy. Source: Application Auto Scaling, "Quotas"
MAX_TAGS = 50


class Operations:
    def __init__(self, scaling: AutoScaling, alarms: Alarms, clock: Clock) -> None:
        self._scaling = scaling
        self._alarms = alarms
        self._clock = clock

    def operations(self) -> dict[tuple[str, str], Operation]:
        return {
            (SERVICE, name): operation
            for name, operation in {
                "RegisterScalableTarget": self._register,
                "DeregisterScalableTarget": self._deregister,
                "DescribeScalableTargets": self._targets,
                "PutScalingPolicy": self._put_policy,
                "DeleteScalingPolicy": self._delete_policy,
                "DescribeScalingPolicies": self._policies,
                "PutScheduledAction": self._put_action,
                "DeleteScheduledAction": self._delete_action,
                "DescribeScheduledActions": self._actions,
                "DescribeScalingActivities": self._activities,
                "TagResource": self._tag,
                "UntagResource": self._untag,
                "ListTagsForResource": self._tags,
            }.items()
        }

    # Targets

    def _register(self, call: Call) -> Mapping[str, Any]:
        asked = call.parameters
        target = self._scaling.register(
            address(asked),
            asked.get("MinCapacity"),
            asked.get("MaxCapacity"),
            {name: value for name, value in asked.get("SuspendedState", {}).items() if name in SUSPENDED},
            asked.get("RoleARN"),
        )
        target.tags |= asked.get("Tags", {})
        return {"ScalableTargetARN": target.arn}

    def _deregister(self, call: Call) -> Mapping[str, Any]:
        self._scaling.deregister(address(call.parameters))
        return {}

    def _targets(self, call: Call) -> Mapping[str, Any]:
        wanted = call.parameters.get("ResourceIds")
        found = [
            one
            for one in self._scaling.targets()
            if (not wanted or one.address.resource_id in wanted) and _is_meant(one.address, call)
        ]
        shown, token = page(found, _paged(call))
        return {"ScalableTargets": [_target(one) for one in shown], "NextToken": token}

    # Policies

    def _put_policy(self, call: Call) -> Mapping[str, Any]:
        asked = call.parameters
        where, name = address(asked), asked["PolicyName"]
        there = next((one for one in self._scaling.policies_of(where) if one.name == name), None)
        kind = asked.get("PolicyType", there.kind if there else "StepScaling")
        if kind == "PredictiveScaling":
            raise NotPlayed(SERVICE, "PutScalingPolicy with PredictiveScaling")
        config = asked.get(f"{kind}PolicyConfiguration")
        if config is None:
            raise ValidationException(f"{kind}PolicyConfiguration must be provided for a policy of type {kind}")
        if there is not None and there.kind != kind:
            raise ValidationException("The policy type of an existing policy cannot be changed")
        (_check_steps if kind == "StepScaling" else _check_tracking)(where, config)
        policy = self._scaling.put_policy(where, name, kind, dict(config))
        return {"PolicyARN": policy.arn, "Alarms": self._alarms_of(policy) if policy.alarm_names else []}

    def _delete_policy(self, call: Call) -> Mapping[str, Any]:
        self._scaling.delete_policy(address(call.parameters), call.parameters["PolicyName"])
        return {}

    def _policies(self, call: Call) -> Mapping[str, Any]:
        wanted = call.parameters.get("PolicyNames")
        found = [
            one
            for one in self._scaling.policies()
            if (not wanted or one.name in wanted) and _is_meant(one.address, call)
        ]
        shown, token = page(found, _paged(call))
        return {"ScalingPolicies": [self._policy(one) for one in shown], "NextToken": token}

    def _policy(self, policy: Policy) -> dict[str, Any]:
        return {
            "PolicyARN": policy.arn,
            "PolicyName": policy.name,
            **_where(policy.address),
            "PolicyType": policy.kind,
            f"{policy.kind}PolicyConfiguration": policy.config,
            "Alarms": self._alarms_of(policy),
            "CreationTime": policy.created,
        }

    def _alarms_of(self, policy: Policy) -> list[dict[str, str]]:
        return [{"AlarmName": name, "AlarmARN": arn} for name, arn in self._scaling.alarms_of(policy)]

    # Scheduled actions

    def _put_action(self, call: Call) -> Mapping[str, Any]:
        asked = call.parameters
        where, name, now = address(asked), asked["ScheduledActionName"], self._clock.now()
        there = self._scaling.action(where, name)
        text, zone = asked.get("Schedule", there.text if there else None), asked.get("Timezone")
        if text is None:
            raise ValidationException("Schedule must be provided for a new scheduled action")
        limits = asked.get("ScalableTargetAction", {})
        if there is None and not limits:
            raise ValidationException("ScalableTargetAction must be provided for a new scheduled action")
        zone = zone or (there.zone if there else None)
        try:
            schedule = parse(text, zone, asked.get("StartTime") or now)
        except ScheduleInvalid as error:
            raise ValidationException(str(error)) from error
        least = limits.get("MinCapacity", there.least if there else None)
        most = limits.get("MaxCapacity", there.most if there else None)
        if least is not None and most is not None and least > most:
            raise ValidationException("Maximum capacity cannot be less than minimum capacity")
        self._scaling.put_action(
            Action(
                self._scaling.new_action_arn(where, name),
                name,
                where,
                text,
                zone,
                schedule,
                asked.get("StartTime", there.start if there else None),
                asked.get("EndTime", there.end if there else None),
                least,
                most,
                now,
            )
        )
        return {}

    def _delete_action(self, call: Call) -> Mapping[str, Any]:
        self._scaling.delete_action(address(call.parameters), call.parameters["ScheduledActionName"])
        return {}

    def _actions(self, call: Call) -> Mapping[str, Any]:
        wanted = call.parameters.get("ScheduledActionNames")
        found = [
            one
            for one in self._scaling.actions()
            if (not wanted or one.name in wanted) and _is_meant(one.address, call)
        ]
        shown, token = page(found, _paged(call))
        return {"ScheduledActions": [_action(one) for one in shown], "NextToken": token}

    # Activities and tags

    def _activities(self, call: Call) -> Mapping[str, Any]:
        everything = call.parameters.get("IncludeNotScaledActivities", False)
        found = [
            one
            for one in self._scaling.activities()
            if (everything or one.not_scaled is None) and _is_meant(one.address, call)
        ]
        shown, token = page(found, _paged(call))
        return {"ScalingActivities": [_activity(one) for one in shown], "NextToken": token}

    def _tag(self, call: Call) -> Mapping[str, Any]:
        target = self._by_arn(call)
        if len({**target.tags, **call.parameters["Tags"]}) > MAX_TAGS:
            raise ServiceFault(f"a scalable target has at most {MAX_TAGS} tags", "TooManyTagsException", 400)
        target.tags |= call.parameters["Tags"]
        return {}

    def _untag(self, call: Call) -> Mapping[str, Any]:
        target = self._by_arn(call)
        for key in call.parameters["TagKeys"]:
            target.tags.pop(key, None)
        return {}

    def _tags(self, call: Call) -> Mapping[str, Any]:
        return {"Tags": self._by_arn(call).tags}

    def _by_arn(self, call: Call) -> Target:
        arn = call.parameters["ResourceARN"]
        for target in self._scaling.targets():
            if target.arn == arn:
                return target
        raise ServiceFault(f"The specified resource doesn't exist: {arn}", "ResourceNotFoundException", 400)


def _check_steps(_where_to: Address, config: Mapping[str, Any]) -> None:
    if "AdjustmentType" not in config:
        raise ValidationException("AdjustmentType must be provided for a step scaling policy")
    steps = config.get("StepAdjustments", [])
    if not steps:
        raise ValidationException("At least one step adjustment must be provided for a step scaling policy")
    if len(steps) > MAX_STEPS:
        raise ValidationException(f"A step scaling policy has at most {MAX_STEPS} step adjustments")
    if "MinAdjustmentMagnitude" in config and config["AdjustmentType"] != "PercentChangeInCapacity":
        raise ValidationException("MinAdjustmentMagnitude can only be provided with PercentChangeInCapacity")
    wrong = steps_wrong(steps)
    if wrong:
        raise ValidationException(wrong)


def _check_tracking(where: Address, config: Mapping[str, Any]) -> None:
    given = [name for name in ("PredefinedMetricSpecification", "CustomizedMetricSpecification") if name in config]
    if len(given) != 1:
        raise ValidationException(
            "Exactly one of PredefinedMetricSpecification or CustomizedMetricSpecification must be provided"
        )
    if config["TargetValue"] <= 0:
        raise ValidationException("TargetValue must be greater than 0")
    if given == ["PredefinedMetricSpecification"]:
        kind = config["PredefinedMetricSpecification"]["PredefinedMetricType"]
        if kind not in where.kind.metrics:
            raise ValidationException(f"{kind} is not supported for scalable dimension {where.dimension}")
        return
    custom = config["CustomizedMetricSpecification"]
    if "Metrics" in custom:
        _check_math(custom)
        return
    missing = [name for name in ("Namespace", "MetricName", "Statistic") if name not in custom]
    if missing:
        raise ValidationException(f"CustomizedMetricSpecification needs {', '.join(missing)}")


def _check_math(custom: Mapping[str, Any]) -> None:
    if len(custom) > 1:
        raise ValidationException("CustomizedMetricSpecification has Metrics or the fields of one metric, not both")
    try:
        formula = tracking.formula_of(custom["Metrics"])
    except FormulaInvalid as error:
        raise ValidationException(f"The metric specification is not valid: {error}") from error
    unknown = sorted({part.statistic for part in formula.parts.values() if not is_statistic(part.statistic)})
    if unknown:
        raise ValidationException(f"mme platform knows no statistic {unknown[0]!r}")


def _is_meant(where: Address, call: Call) -> bool:
    """By the filters that all four Describe operations have."""
    asked = call.parameters
    return bool(
        asked["ServiceNamespace"] == NAMESPACE
        and asked.get("ResourceId", where.resource_id) == where.resource_id
        and asked.get("ScalableDimension", where.dimension) == where.dimension
    )


def _paged(call: Call) -> dict[str, Any]:
    return {"MaxResults": DEFAULT_RESULTS, **call.parameters}


def _where(where: Address) -> dict[str, str]:
    return {"ServiceNamespace": NAMESPACE, "ResourceId": where.resource_id, "ScalableDimension": where.dimension}


def _target(target: Target) -> dict[str, Any]:
    return {
        **_where(target.address),
        "MinCapacity": target.least,
        "MaxCapacity": target.most,
        "RoleARN": target.role_arn,
        "CreationTime": target.created,
        "SuspendedState": dict(target.suspended),
        "ScalableTargetARN": target.arn,
    }


def _action(action: Action) -> dict[str, Any]:
    return {
        "ScheduledActionName": action.name,
        "ScheduledActionARN": action.arn,
        **_where(action.address),
        "Schedule": action.text,
        "Timezone": action.zone,
        "StartTime": action.start,
        "EndTime": action.end,
        "ScalableTargetAction": {"MinCapacity": action.least, "MaxCapacity": action.most},
        "CreationTime": action.created,
    }


def _activity(activity: Activity) -> dict[str, Any]:
    ended: datetime.datetime | None = activity.end
    return {
        "ActivityId": activity.id,
        **_where(activity.address),
        "Description": activity.description,
        "Cause": activity.cause,
        "StartTime": activity.start,
        "EndTime": ended,
        "StatusCode": activity.status,
        "StatusMessage": activity.message,
        "NotScaledReasons": [activity.not_scaled] if activity.not_scaled else None,
    }
