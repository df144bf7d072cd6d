"""What an `apply` would do: a function of the file and of what is there, and of nothing else.

Rule: it asks nobody and changes nothing. What AWS never lets change is made anew under a name of its content; what somebody
changed by hand is drift, which is told and never run over unasked. The order is one in which any step may be the last: what a
later step needs is there before, what an earlier fleet needs goes only when that is gone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from container import settings
from container.operate.deploy import reservation
from container.operate.deploy.cost import Cost, cost_of
from container.operate.deploy.file import ALL_AT_ONCE, MULTI_MODEL, SERVERLESS, ZERO, Wanted
from container.operate.deploy.names import (
    ASKED,
    BEFORE,
    BOUNDS,
    DEPLOYMENT,
    VARIANT,
    Json,
    alarm_prefix,
    is_named,
    policy_prefix,
    tag_list,
)
from container.operate.deploy.resources import WAKE_POLICY, Resources, deployment_for, resources, scalable
from container.operate.deploy.there import There
from container.platform.bill.prices import PriceUnknown
from container.platform.instance_types import INSTANCE_TYPES

ENDPOINT_SETTLED, ENDPOINT_GONE = "endpoint settled", "endpoint gone"
COMPONENT_SETTLED, COMPONENT_GONE = "component settled", "component gone"
BUSY = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})


@dataclass(frozen=True, slots=True)
class Step:
    """One call, or one wait. what: in words; then: what to wait for after it."""

    what: str
    service: str = ""
    operation: str = ""
    arguments: Json = field(default_factory=dict)
    then: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """refused: why it may not be done at all; drift: what somebody changed by hand; ends_early: more is planned when AWS is
    done with what it is at."""

    steps: tuple[Step, ...]
    notices: tuple[str, ...]
    drift: tuple[str, ...]
    refused: tuple[str, ...]
    cost: Cost | None
    resources: Resources
    ends_early: bool = False


def plan(wanted: Wanted, there: There) -> Plan:
    """there: looked up for the names that `resources(wanted, memory_of(wanted, there))` has."""
    return _Planner(wanted, there).plan()


def memory_of(wanted: Wanted, there: There) -> int:
    """MiB that a copy reserves: as the file says, or what was accepted before, or what machine and models ask for."""
    if wanted.kind != ZERO:
        return 0
    assert wanted.zero is not None
    assert wanted.instances is not None
    if wanted.zero.memory:
        return wanted.zero.memory
    machine = INSTANCE_TYPES.get(wanted.instances.type)
    first = reservation.wanted_mib(machine.memory_bytes if machine else 4 << 30, there.models_below)
    if there.component is not None:
        accepted = reserved_mib(there.component)
        if there.component.get("InferenceComponentStatus") == "Failed" and has_no_room(there.component):
            return reservation.next_mib(first, accepted) or reservation.LEAST_MIB
        if accepted in reservation.steps_mib(first):
            return accepted
    return first


def reserved_mib(component: Json) -> int:
    needs = component.get("Specification", {}).get("ComputeResourceRequirements", {})
    return int(needs.get("MinMemoryRequiredInMb", 0))


def has_no_room(component: Json) -> bool:
    return reservation.NO_ROOM in component.get("FailureReason", "").lower()


class _Planner:
    def __init__(self, wanted: Wanted, there: There) -> None:
        self.wanted, self.there = wanted, there
        self.made = resources(wanted, memory_of(wanted, there))
        self.steps: list[Step] = []
        self.notices: list[str] = []
        self.drift: list[str] = []
        self.refused: list[str] = []
        self.ends_early = False

    def plan(self) -> Plan:
        cost = self._cost()
        self._notes()
        endpoint = self.there.endpoint
        if endpoint is not None and self.there.endpoint_tags.get(DEPLOYMENT) != self.wanted.name:
            self.refused.append(
                f"endpoint {self.wanted.name} is somebody else's: it has no tag {DEPLOYMENT} = {self.wanted.name}; "
                "choose another name"
            )
        elif endpoint is not None and endpoint["EndpointStatus"] in BUSY:
            status = endpoint["EndpointStatus"]
            gone = status == "Deleting"
            self._wait(f"the endpoint is {status}; that has to end first", ENDPOINT_GONE if gone else ENDPOINT_SETTLED)
            self.notices.append(f"the endpoint is {status} already; what else is to do is planned when that has ended")
            self.ends_early = True
        elif endpoint is not None and endpoint["EndpointStatus"] == "UpdateRollbackFailed":
            self.refused.append(
                "the endpoint is UpdateRollbackFailed: two configs answer side by side, and AWS says nothing of updates from "
                f"there; mme deploy delete takes it down: {endpoint.get('FailureReason', 'no reason given')}"
            )
        else:
            self._all()
        return Plan(
            steps=() if self.refused else tuple(self.steps),
            notices=tuple(self.notices),
            drift=tuple(self.drift),
            refused=tuple(self.refused),
            cost=cost,
            resources=self.made,
            ends_early=self.ends_early,
        )

    def _all(self) -> None:
        endpoint = self.there.endpoint
        if endpoint is not None and endpoint["EndpointStatus"] in ("Failed", "OutOfService"):
            why = endpoint.get("FailureReason") or "no reason given"
            self.notices.append(
                f"the endpoint is {endpoint['EndpointStatus']} and answers nobody, so it is made anew: {why}"
            )
            self._delete_components()
            self._call("take the endpoint down", "sagemaker", "DeleteEndpoint", self._name(), ENDPOINT_GONE)
            endpoint = None
        elif endpoint is None:
            self._delete_components()  # a deleted endpoint leaves them, and their names stay taken
        self._start()
        if self.there.role_exists is False:
            self.refused.append(f"role {self.wanted.role} is not there")
        self._model_and_config()
        self._alarms(of_wake=False)
        if endpoint is None:
            self._call(
                "make the endpoint",
                "sagemaker",
                "CreateEndpoint",
                {
                    **self.made.endpoint,
                    "Tags": [*self.made.endpoint["Tags"], *tag_list(self._notes_of_new())],
                },
                ENDPOINT_SETTLED,
            )
        elif endpoint["EndpointConfigName"] != self.made.config_name:
            self._update(endpoint)
        if self.made.component is not None:
            self._component(anew=endpoint is None)
        self._scaling(anew=endpoint is None)
        self._alarms(of_wake=True)
        self._count(endpoint)
        self._tidy()

    def _start(self) -> None:
        """What the container would refuse at its start, which AWS tells ten minutes later, if at all."""
        environment = dict(self.made.model["PrimaryContainer"]["Environment"])
        if self.wanted.kind == MULTI_MODEL:
            environment["SAGEMAKER_MULTI_MODEL"] = "true"  # as SageMaker does for Mode=MultiModel
        try:
            settings.read({}, environment)
        except settings.SettingInvalid as error:
            self.refused.append(f"environment: the container would not start: {error}")

    # what is made once

    def _model_and_config(self) -> None:
        if self.made.model["ModelName"] not in self.there.models:
            self._call("make the model", "sagemaker", "CreateModel", self.made.model)
        if self.made.config_name not in self.there.configs:
            self._call("make the config", "sagemaker", "CreateEndpointConfig", self.made.config)

    def _notes_of_new(self) -> dict[str, str]:
        target = self.made.target
        return {ASKED: self.made.config_name} | ({} if target is None else {BOUNDS: _bounds_text(target)})

    def _update(self, endpoint: Json) -> None:
        now, asked = endpoint["EndpointConfigName"], self.there.endpoint_tags.get(ASKED)
        before = self.there.endpoint_tags.get(BEFORE)
        if asked is not None and now != asked:
            if now == before:
                self.notices.append(
                    f"config {asked} was asked for last and is not what answers: that update never began, or was rolled back"
                )
            else:
                self.drift.append(f"config: {now} answers, and the last one asked for here was {asked}")
        n = _count_of(endpoint)
        registered = self.there.target is not None
        is_other_type = self._type_there() not in (None, self._type_wanted())
        if registered and is_other_type and self.wanted.kind == MULTI_MODEL:
            self._call(
                "take autoscaling off, which AWS demands before another instance type",
                "application-autoscaling",
                "DeregisterScalableTarget",
                scalable(self.wanted.kind, self.wanted.name),
            )
        if (asked, before) != (self.made.config_name, now):
            self._call(
                "note what is asked for",
                "sagemaker",
                "AddTags",
                {"ResourceArn": endpoint["EndpointArn"], "Tags": tag_list({ASKED: self.made.config_name, BEFORE: now})},
            )
        arguments: Json = {**self._name(), "EndpointConfigName": self.made.config_name}
        if self.wanted.is_scaled and self.wanted.kind == MULTI_MODEL:
            arguments["RetainAllVariantProperties"] = True
            self.notices.append("while the update runs nothing is scaled; the number of machines stays what it is now")
        fleet = n if self.wanted.is_scaled else self.made.config["ProductionVariants"][0].get("InitialInstanceCount", 1)
        deployment = deployment_for(self.made.deployment, fleet, self.made.rollback_alarms)
        if deployment is not None:
            arguments["DeploymentConfig"] = deployment
        self._call("update the endpoint", "sagemaker", "UpdateEndpoint", arguments, ENDPOINT_SETTLED)
        self._tell_of_update(fleet)

    def _tell_of_update(self, fleet: int) -> None:
        update = self.wanted.update
        if self.wanted.kind == SERVERLESS:
            self.notices.append("callers wait for cold starts of the new config")
            return
        if self.wanted.kind == ZERO:
            self.notices.append("the machines are replaced; calls find no capacity until the first is back")
            return
        if fleet < 2 and update.way != ALL_AT_ONCE:
            self.notices.append(
                f"one machine has no half: the update is all-at-once instead of {update.way}, "
                f"then watched for {update.wait_s} s"
            )
        self.notices.append(
            "each model is loaded anew on the new fleet: first calls are slower, but of those in update.warm"
        )
        if not self.made.rollback_alarms:
            self.notices.append("no alarm watches the update, so nothing but a fleet that does not start rolls it back")

    # components

    def _component(self, *, anew: bool) -> None:
        wanted = self.made.component
        assert wanted is not None
        found = None if anew else self.there.component
        name = self.wanted.name
        for one in () if anew else self.there.components:
            if one["InferenceComponentName"] != name:
                self.drift.append(
                    f"component {one['InferenceComponentName']} is on the endpoint, and the file knows none such"
                )
        if found is not None and found["InferenceComponentStatus"] == "Failed":
            why = found.get("FailureReason") or "no reason given"
            self.notices.append(f"the component has failed and is made anew: {why}")
            self._delete_component(name)
            found = None
        if found is None:
            memory = wanted["Specification"]["ComputeResourceRequirements"]["MinMemoryRequiredInMb"]
            self._call(
                f"make the component, {memory:,} MiB reserved for each copy",
                "sagemaker",
                "CreateInferenceComponent",
                wanted,
                COMPONENT_SETTLED,
            )
            self.notices.append(
                "the component begins with one copy, since AWS makes none with zero; idle, it is gone after 15 minutes"
            )
            return
        if found["InferenceComponentStatus"] in ("Creating", "Updating", "Deleting"):
            self._wait(
                f"the component is {found['InferenceComponentStatus']}; that has to end first",
                COMPONENT_GONE if found["InferenceComponentStatus"] == "Deleting" else COMPONENT_SETTLED,
            )
            self.ends_early = True
            return
        self._component_specification(found, wanted["Specification"])

    def _component_specification(self, found: Json, specification: Json) -> None:
        now = found.get("Specification", {})
        changes = _differences(specification, now)
        if not changes:
            return
        model = now.get("ModelName", "")
        if not is_named(self.wanted.name, model):
            self.drift.append(
                f"component {self.wanted.name} runs {model or 'a container of its own'}, which was not made here"
            )
        self._call(
            f"update the component: {', '.join(changes)}",
            "sagemaker",
            "UpdateInferenceComponent",
            {"InferenceComponentName": self.wanted.name, "Specification": specification},
            COMPONENT_SETTLED,
        )

    def _delete_components(self) -> None:
        for one in self.there.components:
            self._delete_component(one["InferenceComponentName"])

    def _delete_component(self, name: str) -> None:
        self._call(
            f"take component {name} down",
            "sagemaker",
            "DeleteInferenceComponent",
            {"InferenceComponentName": name},
            COMPONENT_GONE,
        )

    # scaling

    def _scaling(self, *, anew: bool) -> None:
        wanted, there = self.made.target, self.there.target
        of = scalable(self.wanted.kind, self.wanted.name)
        if any(step.operation == "DeregisterScalableTarget" for step in self.steps) or anew:
            there = None
        policies = {} if there is None else self.there.policies
        if wanted is None:
            if there is not None:
                self._call(
                    "take autoscaling off: the file fixes the count",
                    "application-autoscaling",
                    "DeregisterScalableTarget",
                    of,
                )
            return
        self._bounds(wanted, there, anew=anew)
        for policy in self.made.policies:
            found = policies.get(policy["PolicyName"])
            if found is not None and not (changes := _differences(_configuration(policy), _configuration(found))):
                continue
            if found is not None:
                self.drift.append(f"policy {policy['PolicyName']}: {', '.join(changes)}")
            word = "track the calls" if policy["PolicyType"] == "TargetTrackingScaling" else "wake from zero"
            self._call(f"put the policy that scales to {word}", "application-autoscaling", "PutScalingPolicy", policy)
        for name in sorted(set(policies) - {one["PolicyName"] for one in self.made.policies}):
            if name.startswith(policy_prefix(self.wanted.name)):
                self._call(
                    f"take policy {name} away",
                    "application-autoscaling",
                    "DeleteScalingPolicy",
                    {"PolicyName": name, **of},
                )
            else:
                self.drift.append(f"policy {name} was put beside ours")
        scheduled = {} if there is None else self.there.scheduled
        for action in self.made.schedule:
            found = scheduled.get(action["ScheduledActionName"])
            if found is None or _differences(action, found):
                self._call(f"schedule: {action['Schedule']}", "application-autoscaling", "PutScheduledAction", action)
        for name in sorted(set(scheduled) - {one["ScheduledActionName"] for one in self.made.schedule}):
            if name.startswith(policy_prefix(self.wanted.name)):
                self._call(
                    f"take schedule {name} away",
                    "application-autoscaling",
                    "DeleteScheduledAction",
                    {"ScheduledActionName": name, **of},
                )

    def _bounds(self, wanted: Json, there: Json | None, *, anew: bool) -> None:
        asked = _bounds_text(wanted)
        now = None if there is None else _bounds_text(there)
        is_suspended = there is not None and any(there.get("SuspendedState", {}).values())
        if now == asked and not is_suspended:
            return
        known = self.there.endpoint_tags.get(BOUNDS, "").split()
        if self.made.schedule and now == "0-0":
            self.notices.append("it is night: the schedule holds the count at 0")
            return
        if now is not None and now != asked and known and now not in known:
            self.drift.append(f"scaling bounds: {now} there, {asked} in the file")
        if is_suspended:
            self.drift.append("scaling is suspended")
        arn = None if anew or self.there.endpoint is None else self.there.endpoint["EndpointArn"]
        if arn is not None and known[:1] != [asked]:
            tags = tag_list({BOUNDS: f"{asked} {now or ''}".strip()})
            self._call("note the bounds", "sagemaker", "AddTags", {"ResourceArn": arn, "Tags": tags})
        arguments = dict(wanted)
        if is_suspended:
            arguments["SuspendedState"] = {
                "DynamicScalingInSuspended": False,
                "DynamicScalingOutSuspended": False,
                "ScheduledScalingSuspended": False,
            }
        self._call(
            f"let it scale from {wanted['MinCapacity']} to {wanted['MaxCapacity']}",
            "application-autoscaling",
            "RegisterScalableTarget",
            arguments,
        )

    def _count(self, endpoint: Json | None) -> None:
        """A fleet of a fixed count that has another one."""
        if endpoint is None or self.wanted.kind != MULTI_MODEL or self.wanted.is_scaled:
            return
        assert self.wanted.instances is not None
        if endpoint["EndpointConfigName"] != self.made.config_name:
            return  # the update brings its own count
        n = _count_of(endpoint)
        if n == self.wanted.instances.least:
            return
        self.notices.append(f"there are {n} machines; the file says {self.wanted.instances.least}")
        self._call(
            f"{self.wanted.instances.least} machines instead of {n}",
            "sagemaker",
            "UpdateEndpointWeightsAndCapacities",
            {
                **self._name(),
                "DesiredWeightsAndCapacities": [
                    {"VariantName": VARIANT, "DesiredInstanceCount": self.wanted.instances.least}
                ],
            },
            ENDPOINT_SETTLED,
        )

    # alarms

    def _alarms(self, *, of_wake: bool) -> None:
        for alarm in self.made.alarms:
            if (WAKE_POLICY in alarm["AlarmActions"]) != of_wake:
                continue
            found = self.there.alarms.get(alarm["AlarmName"])
            wanted = dict(alarm)
            arn = self._wake_arn() if of_wake else None
            if arn is not None:
                wanted["AlarmActions"] = [arn]
            elif of_wake and found is not None:
                found = None  # its policy is put anew, so its address is not known yet
            changes = [] if found is None else _differences({k: v for k, v in wanted.items() if k != "Tags"}, found)
            if found is not None and not changes:
                continue
            if found is not None:
                self.drift.append(f"alarm {alarm['AlarmName']}: {', '.join(changes)}")
            self._call(f"put the alarm {alarm['AlarmName']}", "cloudwatch", "PutMetricAlarm", wanted)

    def _wake_arn(self) -> str | None:
        wake = next((one["PolicyName"] for one in self.made.policies if one["PolicyType"] == "StepScaling"), None)
        put = {step.arguments.get("PolicyName") for step in self.steps if step.operation == "PutScalingPolicy"}
        found = self.there.policies.get(wake or "")
        return None if wake in put or found is None else found["PolicyARN"]

    # what nobody needs any more

    def _tidy(self) -> None:
        names = {one["AlarmName"] for one in self.made.alarms}
        old = [
            name
            for name in sorted(self.there.alarms)
            if name not in names and name.startswith(alarm_prefix(self.wanted.name))
        ]
        if old:
            self._call(f"take {len(old)} old alarms away", "cloudwatch", "DeleteAlarms", {"AlarmNames": old})
        kept = self._kept()
        for name in self.there.configs:
            if name not in kept:
                self._call(
                    f"take old config {name} away", "sagemaker", "DeleteEndpointConfig", {"EndpointConfigName": name}
                )
        used = {self.made.model["ModelName"]} | {
            variant.get("ModelName", "")
            for name, config in self.there.configs.items()
            if name in kept
            for variant in config.get("ProductionVariants", ())
        }
        used |= {one.get("Specification", {}).get("ModelName", "") for one in self.there.components}
        spare = [name for name in self.there.models if name not in used]
        # A component's models are named by no config; as many of them stay as configs would.
        n_kept = self.wanted.update.keep if self.wanted.kind == ZERO else 0
        for name in spare[n_kept:]:
            self._call(f"take old model {name} away", "sagemaker", "DeleteModel", {"ModelName": name})

    def _kept(self) -> set[str]:
        """Never one in use, and never the one to go back to. configs: the newest first."""
        kept = {
            self.made.config_name,
            self.there.endpoint_tags.get(BEFORE, ""),
            self.there.endpoint_tags.get(ASKED, ""),
        }
        if self.there.endpoint is not None:
            kept.add(self.there.endpoint["EndpointConfigName"])
        others = [name for name in self.there.configs if name not in kept]
        return kept | set(others[: self.wanted.update.keep])

    # small things

    def _cost(self) -> Cost | None:
        try:
            cost = cost_of(self.wanted, self.there.region)
        except PriceUnknown as error:
            self.refused.append(f"there is no upper bound for the bill: {error}")
            return None
        if cost.most_month > self.wanted.month_usd:
            self.refused.append(
                f"a month may cost {cost.most_month:,.2f} USD, more than month_usd, {self.wanted.month_usd:,.2f}"
            )
        return cost

    def _notes(self) -> None:
        if "@sha256:" not in self.wanted.image:
            self.notices.append(
                "the image is named by a tag: what is pushed there later is taken up by new machines unasked"
            )
        if self.wanted.zero is not None and self.wanted.zero.nights:
            off, on = self.wanted.zero.nights.split("-")
            self.notices.append(f"from {off} to {on} o'clock ({self.wanted.zero.timezone}) no call wakes it")
        if self.wanted.kind == ZERO:
            self.notices.append(
                "at zero a call gets ValidationError until a copy is there, 5 to 10 minutes by others' measurements; "
                "mme invoke --wake waits it out"
            )

    def _type_wanted(self) -> str | None:
        return None if self.wanted.instances is None else self.wanted.instances.type

    def _type_there(self) -> str | None:
        config = self.there.config
        return None if config is None else config["ProductionVariants"][0].get("InstanceType")

    def _name(self) -> Json:
        return {"EndpointName": self.wanted.name}

    def _call(self, what: str, service: str, operation: str, arguments: Json, then: str = "") -> None:
        self.steps.append(Step(what, service, operation, arguments, then))

    def _wait(self, what: str, then: str) -> None:
        self.steps.append(Step(what, then=then))


def _count_of(endpoint: Json) -> int:
    variants = endpoint.get("ProductionVariants") or [{}]
    return int(variants[0].get("DesiredInstanceCount") or variants[0].get("CurrentInstanceCount") or 1)


def _bounds_text(target: Json) -> str:
    return f"{target['MinCapacity']}-{target['MaxCapacity']}"


def _configuration(policy: Json) -> Json:
    names = ("PolicyType", "TargetTrackingScalingPolicyConfiguration", "StepScalingPolicyConfiguration")
    return {name: policy[name] for name in names if policy.get(name)}


def _differences(wanted: object, found: object, path: str = "") -> list[str]:
    """What of `wanted` is otherwise in `found`, which may say more: AWS fills in defaults."""
    if isinstance(wanted, dict):
        told = found if isinstance(found, dict) else {}
        return [
            text
            for key, value in wanted.items()
            for text in _differences(value, told.get(key), f"{path}.{key}" if path else key)
        ]
    if isinstance(wanted, list | tuple):  # of nothing here does the order mean anything, and AWS has its own
        others = sorted(found, key=str) if isinstance(found, list | tuple) else []
        if len(wanted) == len(others):
            pairs = zip(sorted(wanted, key=str), others, strict=True)
            return [text for one, other in pairs for text in _differences(one, other, path)]
        return [] if not wanted and not others else [f"{path} {others} instead of {list(wanted)}"]
    if isinstance(wanted, bool) and not wanted and found is None:
        return []  # false is what AWS leaves out
    return [] if wanted == found else [f"{path} {found!r} instead of {wanted!r}"]
