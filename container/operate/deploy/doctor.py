"""Each trap that costs money or answers, as a check: what is wrong, what it costs, the call that mends it.

Rule: a check is a function of what was seen. It says nothing where it could not look. A mend that could harm who calls is
told and never made by itself: `is_safe` is for those that only put back what the file says.

Source of the traps: SageMaker guide, endpoint-auto-scaling-zero-instances; Application Auto Scaling's API (SuspendedState,
NotScaledReasons); reports linked in README.md of this room.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

from botocore import xform_name

from container.operate.deploy.apply import COMPONENT_MOST_S, ENDPOINT_MOST_S
from container.operate.deploy.file import MULTI_MODEL, SERVERLESS, ZERO, Wanted
from container.operate.deploy.health import IDLE_DAYS, Health, log_group
from container.operate.deploy.names import ASKED, Json, is_named
from container.operate.deploy.plan import BUSY, Plan, Step, plan
from container.operate.deploy.policies import execution_policy
from container.operate.deploy.resources import NO_CAPACITY, WAKE_POLICY, alarm_word
from container.operate.deploy.rights import missing
from container.platform.bill.prices import HOURS_PER_MONTH, PriceUnknown, price_usd_per_hour

# Steps that put back what the file says and disturb nobody who calls.
SAFE = frozenset(
    {
        "RegisterScalableTarget",
        "PutScalingPolicy",
        "DeleteScalingPolicy",
        "PutScheduledAction",
        "DeleteScheduledAction",
        "PutMetricAlarm",
        "DeleteAlarms",
        "DeleteEndpointConfig",
        "DeleteModel",
        "AddTags",
    }
)


@dataclass(frozen=True, slots=True)
class Finding:
    """check: its name; costs: in money or in calls; mend: the call, as one would type it; is_safe: `--fix` makes it."""

    check: str
    what: str
    costs: str
    mend: str
    is_safe: bool = False


@dataclass(frozen=True, slots=True)
class _Seen:
    wanted: Wanted
    health: Health
    plan: Plan

    @property
    def endpoint(self) -> Json | None:
        return self.health.there.endpoint

    def step(self, operation: str, having: str = "") -> Step | None:
        """The plan's own step that mends it."""
        found = (one for one in self.plan.steps if one.operation == operation)
        return next((one for one in found if having in json.dumps(one.arguments, default=str)), None)

    def mend(self, operation: str, having: str = "") -> tuple[str, bool]:
        step = self.step(operation, having)
        if step is None:
            return "mme deploy apply", False
        if WAKE_POLICY in step.arguments.get("AlarmActions", ()):
            return "mme deploy apply, which puts the policy that the alarm calls before it", operation in SAFE
        return command_line(step), operation in SAFE


Check = Callable[[_Seen], Iterator[Finding]]


def diagnose(wanted: Wanted, health: Health) -> tuple[Finding, ...]:
    seen = _Seen(wanted, health, plan(wanted, health.there))
    return tuple(found for check in CHECKS for found in check(seen))


def preflight(wanted: Wanted, health: Health) -> Plan:
    """The plan, with what of the role would end it ten minutes later. It is told, no more: a bucket may let the role in."""
    planned = plan(wanted, health.there)
    seen = _Seen(wanted, health, planned)
    notices = [f"{found.what}; {found.mend}" for found in _role(seen) if found.check == "role-lacks"]
    return replace(planned, notices=(*planned.notices, *notices))


def safe_steps(wanted: Wanted, health: Health) -> tuple[Step, ...]:
    """What `--fix` does: nothing at all while the endpoint is not what the file says."""
    planned = plan(wanted, health.there)
    if any(step.operation not in SAFE for step in planned.steps):
        return tuple(step for step in planned.steps if step.operation in SAFE and _alone(step))
    return planned.steps


def _alone(step: Step) -> bool:
    """It makes sense without the steps around it."""
    return step.operation != "AddTags" and not step.operation.startswith("Delete")


def command_line(step: Step) -> str:
    """The AWS CLI's line for a step."""
    service = {"s3": "s3api"}.get(step.service, step.service)
    operation = xform_name(step.operation, "-")
    arguments = json.dumps(step.arguments, separators=(",", ":"))
    return f"aws {service} {operation} --cli-input-json {shlex.quote(arguments)}"


# the endpoint


def _endpoint_there(seen: _Seen) -> Iterator[Finding]:
    endpoint = seen.endpoint
    if endpoint is None:
        yield Finding("endpoint-missing", "there is no such endpoint", "calls are refused", "mme deploy apply")
        for one in seen.health.there.components:
            name = one["InferenceComponentName"]
            yield Finding(
                "component-left",
                f"component {name} is left of an endpoint that is gone",
                "its name stays taken",
                f"aws sagemaker delete-inference-component --inference-component-name {name}",
            )
        return
    status = endpoint["EndpointStatus"]
    why = endpoint.get("FailureReason") or "AWS gives no reason"
    if status in ("Failed", "OutOfService"):
        yield Finding("endpoint-failed", f"the endpoint is {status}: {why}", "calls are refused", "mme deploy apply")
    since = endpoint.get("LastModifiedTime") or endpoint.get("CreationTime")
    if status in BUSY and since is not None and seen.health.at - since > timedelta(seconds=ENDPOINT_MOST_S):
        hours = (seen.health.at - since).total_seconds() / 3600
        yield Finding(
            "endpoint-stuck",
            f"the endpoint is {status} for {hours:.1f} h",
            _month(seen, max(1, _n_instances(endpoint))),
            f"aws sagemaker delete-endpoint --endpoint-name {seen.wanted.name}, once AWS lets it",
        )
    if status == "UpdateRollbackFailed":
        yield Finding(
            "rollback-failed", f"two configs answer side by side: {why}", "answers of two versions, machines of two fleets",
            "mme deploy delete, then mme deploy apply",
        )  # fmt: skip


def _config_asked(seen: _Seen) -> Iterator[Finding]:
    if seen.endpoint is None or seen.endpoint["EndpointStatus"] != "InService":
        return
    now, asked = seen.endpoint["EndpointConfigName"], seen.health.there.endpoint_tags.get(ASKED)
    if asked is not None and now != asked:
        why = seen.endpoint.get("FailureReason") or "AWS gives no reason"
        yield Finding(
            "config-not-asked",
            f"{now} answers and {asked} was asked for: rolled back, or changed by hand ({why})",
            "the old models' container answers, and nobody knows",
            "mme deploy status says what differs; mme deploy apply tries again",
        )


def _count(seen: _Seen) -> Iterator[Finding]:
    wanted = seen.wanted
    if seen.endpoint is None or wanted.instances is None or wanted.kind != MULTI_MODEL:
        return
    n = _n_instances(seen.endpoint)
    if n > wanted.instances.most:
        mend, is_safe = seen.mend("UpdateEndpointWeightsAndCapacities")
        yield Finding(
            "too-many-machines",
            f"{n} machines, and the file says {wanted.instances.most} at most",
            _month(seen, n - wanted.instances.most),
            mend,
            is_safe,
        )


def _idle(seen: _Seen) -> Iterator[Finding]:
    if seen.endpoint is None or seen.health.calls is None or seen.health.calls > 0:
        return
    created = seen.endpoint.get("CreationTime")
    if created is not None and seen.health.at - created < timedelta(days=IDLE_DAYS):
        return
    n = _n_instances(seen.endpoint)
    if n and seen.wanted.kind != SERVERLESS:
        yield Finding(
            "idle",
            f"{n} machines run and nobody has called for {IDLE_DAYS} days",
            _month(seen, n),
            'mme deploy delete, or kind = "zero"',
        )


# scaling


def _policies(seen: _Seen) -> Iterator[Finding]:
    if seen.endpoint is None or not seen.wanted.is_scaled:
        return
    there = seen.health.there
    if there.target is None:
        mend, is_safe = seen.mend("RegisterScalableTarget")
        yield Finding("target-missing", "nothing scales it: it is not registered", _stays(seen), mend, is_safe)
    for kind, check, harm in (
        ("TargetTrackingScaling", "tracking-missing", _stays(seen)),
        ("StepScaling", "wake-policy-missing", "no call ever wakes it"),
    ):
        is_wanted = any(one["PolicyType"] == kind for one in seen.plan.resources.policies)
        if is_wanted and not any(one["PolicyType"] == kind for one in there.policies.values()):
            mend, is_safe = seen.mend("PutScalingPolicy", kind)
            yield Finding(check, f"there is no policy of type {kind}", harm, mend, is_safe)


def _suspended(seen: _Seen) -> Iterator[Finding]:
    target = seen.health.there.target
    if target is None:
        return
    for member, harm in (
        ("DynamicScalingInSuspended", _stays(seen)),
        ("DynamicScalingOutSuspended", "no call ever wakes it, and load meets the machines that are there"),
        ("ScheduledScalingSuspended", "nights do not come"),
    ):
        if target.get("SuspendedState", {}).get(member):
            mend, is_safe = seen.mend("RegisterScalableTarget")
            yield Finding("suspended", f"{member} is on", harm, mend, is_safe)


def _scale_in(seen: _Seen) -> Iterator[Finding]:
    for name, policy in seen.health.there.policies.items():
        if policy.get("TargetTrackingScalingPolicyConfiguration", {}).get("DisableScaleIn"):
            mend, is_safe = seen.mend("PutScalingPolicy", name)
            yield Finding("scale-in-disabled", f"policy {name} never scales in", _stays(seen), mend, is_safe)


def _tracking_alarms(seen: _Seen) -> Iterator[Finding]:
    for name, policy in seen.health.there.policies.items():
        if policy["PolicyType"] == "TargetTrackingScaling" and not policy.get("Alarms"):
            yield Finding(
                "tracking-alarms-missing",
                f"policy {name} has no alarms of its own, so it never acts",
                _stays(seen),
                command_line(_put_again(policy)),
            )


def _put_again(policy: Json) -> Step:
    names = ("PolicyName", "ServiceNamespace", "ResourceId", "ScalableDimension", "PolicyType",
             "TargetTrackingScalingPolicyConfiguration", "StepScalingPolicyConfiguration")  # fmt: skip
    return Step(
        "", "application-autoscaling", "PutScalingPolicy", {name: policy[name] for name in names if name in policy}
    )


def _bounds(seen: _Seen) -> Iterator[Finding]:
    wanted, target = seen.plan.resources.target, seen.health.there.target
    if wanted is not None and target is not None:
        mend, is_safe = seen.mend("RegisterScalableTarget")
        if target["MaxCapacity"] > wanted["MaxCapacity"]:
            over = target["MaxCapacity"] - wanted["MaxCapacity"]
            yield Finding(
                "upper-bound", f"it may scale to {target['MaxCapacity']}, the file says {wanted['MaxCapacity']}",
                f"up to {_month(seen, over)}", mend, is_safe,
            )  # fmt: skip
        if target["MinCapacity"] > wanted["MinCapacity"]:
            over = target["MinCapacity"] - wanted["MinCapacity"]
            yield Finding(
                "lower-bound", f"it never has fewer than {target['MinCapacity']}, the file says {wanted['MinCapacity']}",
                _month(seen, over), mend, is_safe,
            )  # fmt: skip
    config = seen.health.there.config
    if seen.wanted.kind == ZERO and config is not None:
        managed = config["ProductionVariants"][0].get("ManagedInstanceScaling", {})
        if managed.get("Status") != "ENABLED":
            yield Finding(
                "machines-stay",
                "managed instance scaling is off: copies go, machines stay",
                _stays(seen),
                "mme deploy apply",
            )
        elif "MaxInstanceCount" not in managed:
            yield Finding("upper-bound", "machines have no upper bound", "whatever AWS has", "mme deploy apply")
        elif managed.get("MinInstanceCount", 0) > 0:
            n = managed["MinInstanceCount"]
            yield Finding("never-zero", f"{n} machines stay at zero copies", _month(seen, n), "mme deploy apply")


def _activities(seen: _Seen) -> Iterator[Finding]:
    activities = seen.health.activities or ()
    # One that was not scaled has reasons, whatever its status is called; what happens now and then is no fault.
    failed = [one for one in activities if one.get("StatusCode") in _FAILED and not one.get("NotScaledReasons")]
    if failed:
        newest = failed[0]
        why = newest.get("StatusMessage") or newest.get("Cause") or "AWS gives no reason"
        yield Finding(
            "scaling-failed",
            f"scaling {newest['StatusCode'].lower()}: {why}",
            "the count is not what load asks for",
            "mme deploy status; a limit of the account, or no capacity, is AWS's to lift",
        )
    codes = Counter(reason.get("Code", "") for one in activities for reason in one.get("NotScaledReasons") or ())
    for code, why in _NOT_SCALED.items():
        if codes[code] >= OFTEN:
            yield Finding("not-scaled", f"{code}, {codes[code]} times: {why}", _stays(seen), "mme deploy apply")


_FAILED = ("Failed", "Unfulfilled")
OFTEN = 3  # times among the newest activities
# Of AWS's codes those that are a fault; AlreadyAtMinCapacity and the like are how it should be.
_NOT_SCALED = {
    "AutoScalingAnticipatedFlapping": "the target is so near to what one machine does that it would go out and in",
    "TargetServicePutResourceAsUnscalable": "SageMaker refuses to change the count, as it does while an update runs",
}


# alarms


def _alarms(seen: _Seen) -> Iterator[Finding]:
    if seen.endpoint is None:
        return
    there = seen.health.there
    found = {alarm_word(name): one for name, one in there.alarms.items()}
    for alarm in seen.plan.resources.alarms:
        word = alarm_word(alarm["AlarmName"])
        one = there.alarms.get(alarm["AlarmName"]) or found.get(word)
        harm = _HARM.get(word, "an update that fails is not rolled back")
        mend, is_safe = seen.mend("PutMetricAlarm", alarm["AlarmName"])
        if one is None:
            yield Finding(f"{word}-alarm-missing", f"alarm {alarm['AlarmName']} is not there", harm, mend, is_safe)
            continue
        if one.get("ActionsEnabled") is False and alarm["AlarmActions"]:
            line = f"aws cloudwatch enable-alarm-actions --alarm-names {one['AlarmName']}"
            yield Finding(f"{word}-alarm-mute", f"alarm {one['AlarmName']} does nothing when it rings", harm, line)
        if one.get("Threshold") != alarm["Threshold"]:
            yield Finding(
                f"{word}-alarm-deaf",
                f"alarm {one['AlarmName']} rings at {one.get('Threshold')}, not {alarm['Threshold']}",
                harm, mend, is_safe,
            )  # fmt: skip
        if word == "wake":
            yield from _wake(seen, one, mend, is_safe=is_safe)


_HARM = {"wake": "no call ever wakes it", "idle": "machines that nobody calls are not noticed",
         "awake": "machines that never sleep are not noticed"}  # fmt: skip


def _wake(seen: _Seen, alarm: Json, mend: str, *, is_safe: bool) -> Iterator[Finding]:
    arns = {one["PolicyARN"] for one in seen.health.there.policies.values() if one["PolicyType"] == "StepScaling"}
    if not arns & set(alarm.get("AlarmActions", ())):
        yield Finding(
            "wake-alarm-nowhere", "the wake alarm calls no policy that is there", "no call ever wakes it", mend, is_safe
        )
    if alarm.get("MetricName") not in (None, NO_CAPACITY):
        yield Finding(
            "wake-alarm-deaf", f"the wake alarm watches {alarm['MetricName']}", "no call ever wakes it", mend, is_safe
        )


# components


def _component(seen: _Seen) -> Iterator[Finding]:
    if seen.endpoint is None or seen.wanted.kind != ZERO:
        return
    there = seen.health.there
    if there.component is None:
        yield Finding(
            "component-missing", "there is no component", "machines without anything to answer", "mme deploy apply"
        )
    for one in there.components:
        name, status = one["InferenceComponentName"], one["InferenceComponentStatus"]
        if status == "Failed":
            why = one.get("FailureReason") or "AWS gives no reason"
            yield Finding("component-failed", f"component {name} has failed: {why}", _stays(seen), "mme deploy apply")
        since = one.get("LastModifiedTime") or one.get("CreationTime")
        is_busy = status in ("Creating", "Updating", "Deleting")
        if is_busy and since is not None and seen.health.at - since > timedelta(seconds=COMPONENT_MOST_S):
            hours = (seen.health.at - since).total_seconds() / 3600
            yield Finding(
                "component-stuck",
                f"component {name} is {status} for {hours:.1f} h; AWS does not delete it while it is",
                _month(seen, max(1, _n_instances(seen.endpoint))),
                f"aws sagemaker delete-endpoint --endpoint-name {seen.wanted.name}, which ends the machines under it",
            )
        if name != seen.wanted.name:
            yield Finding(
                "component-foreign",
                f"component {name} is on the endpoint, too: machines end only when all components are at zero",
                _stays(seen),
                f"aws sagemaker delete-inference-component --inference-component-name {name}",
            )


# rights, logs, leavings


def _role(seen: _Seen) -> Iterator[Finding]:
    if seen.health.there.role_exists is False:
        yield Finding(
            "role-missing", f"role {seen.wanted.role} is not there", "nothing starts any more", "mme deploy template"
        )
        return
    if seen.health.role is None:
        return
    lacking = missing(seen.health.role, execution_policy(seen.wanted))
    rights = [f"{', '.join(actions)} on {resource}" for resource, actions in lacking.items()]
    if rights:
        yield Finding(
            "role-lacks",
            f"the execution role may not {'; '.join(rights)}",
            "what starts next does not start, or says nothing",
            "mme deploy template --iam execution prints the policy that is needed",
        )


def _log(seen: _Seen) -> Iterator[Finding]:
    if seen.endpoint is None or seen.health.has_log is not False or not _n_instances(seen.endpoint):
        return
    name = log_group(seen.wanted)
    yield Finding(
        "log-missing",
        f"there is no log group {name}: the container never started, or the role may not write",
        "a failure has no words",
        f"aws logs create-log-group --log-group-name {name}",
    )


def _leavings(seen: _Seen) -> Iterator[Finding]:
    for operation, what in (("DeleteEndpointConfig", "config"), ("DeleteModel", "model"), ("DeleteAlarms", "alarms")):
        steps = [one for one in seen.plan.steps if one.operation == operation]
        if steps:
            names = [name for one in steps for name in _named(one)]
            yield Finding(
                f"old-{what}", f"{what} that nobody needs: {', '.join(names[:5])}" + (", ..." if len(names) > 5 else ""),
                "nothing by the month, but the account holds so many", command_line(steps[0]), is_safe=True,
            )  # fmt: skip
    there = seen.health.there
    if there.endpoint is None:
        left = [name for name in [*there.configs, *there.models] if is_named(seen.wanted.name, name)]
        if left:
            yield Finding(
                "left-over", f"left of an endpoint that is gone: {', '.join(left[:5])}", "nothing", "mme deploy delete"
            )


def _named(step: Step) -> list[str]:
    named = next(iter(step.arguments.values()))
    return named if isinstance(named, list) else [named]


CHECKS: tuple[Check, ...] = (
    *(_endpoint_there, _config_asked, _count, _idle),
    *(_policies, _suspended, _scale_in, _tracking_alarms, _bounds, _activities),
    *(_alarms, _component, _role, _log, _leavings),
)


# what it costs


def _n_instances(endpoint: Json) -> int:
    return int((endpoint.get("ProductionVariants") or [{}])[0].get("CurrentInstanceCount", 0))


def _month(seen: _Seen, n: int) -> str:
    """What so many machines cost, kept for a month."""
    if seen.wanted.instances is None:
        return "by the call"
    try:
        usd = price_usd_per_hour(seen.wanted.instances.type, seen.health.there.region) * HOURS_PER_MONTH * n
    except PriceUnknown:
        return f"{n} machines, whose price is not known"
    return f"{usd:,.0f} USD a month"


def _stays(seen: _Seen) -> str:
    """It never scales in: what stays."""
    n = 1 if seen.endpoint is None else max(1, _n_instances(seen.endpoint))
    return f"what runs stays: {_month(seen, n)}"
