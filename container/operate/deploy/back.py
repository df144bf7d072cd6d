"""The way back: to the config before, and to nothing.

Rule: as `apply`, steps from what is there. Deleting goes in the order that AWS wants and takes only what carries this
deployment's name; what is somebody else's is told and left.

Source of the order: AWS refuses to delete what is registered or used; components outlive their endpoint and keep their names.
"""

from __future__ import annotations

from container.operate.deploy.apply import Carrier, Pace, Tell
from container.operate.deploy.aws import Aws
from container.operate.deploy.file import ZERO, Wanted
from container.operate.deploy.look import look
from container.operate.deploy.names import ASKED, BEFORE, DEPLOYMENT, Json, alarm_prefix, is_named, tag_list
from container.operate.deploy.plan import COMPONENT_GONE, COMPONENT_SETTLED, ENDPOINT_GONE, ENDPOINT_SETTLED, Step
from container.operate.deploy.resources import deployment_for, resources, scalable
from container.operate.deploy.there import There
from container.operate.deploy.trouble import NotAsAsked
from container.operate.troubles import NotNow, Refused

N_ROUNDS = 6


def rollback_steps(wanted: Wanted, there: There, to: str | None = None) -> tuple[Step, ...]:
    """to: a config's name, of a zero deployment a model's; else what was there before. Raises Refused."""
    if there.endpoint is None:
        raise Refused(f"there is no endpoint {wanted.name}")
    _refuse_foreign(wanted, there)
    status = there.endpoint["EndpointStatus"]
    if status != "InService":
        raise NotNow(f"the endpoint is {status}; that has to end first")
    return _component_back(wanted, there, to) if wanted.kind == ZERO else _config_back(wanted, there, to)


def _config_back(wanted: Wanted, there: There, to: str | None) -> tuple[Step, ...]:
    endpoint = there.endpoint
    assert endpoint is not None
    now = endpoint["EndpointConfigName"]
    older = to or there.endpoint_tags.get(BEFORE)
    if older is None or older == now:
        raise Refused(f"nothing was there before {now}" if to is None else f"{to} is what answers")
    if older not in there.configs:
        kept = ", ".join(there.configs) or "none"
        raise Refused(f"config {older} is not kept; there are {kept}")
    made = resources(wanted)
    alarms = [_watching(alarm, now=made.config_name, then=older) for alarm in made.alarms]
    stopping = [one for one in alarms if one["AlarmName"].startswith(_renamed_prefixes(made.rollback_alarms))]
    n = int((endpoint.get("ProductionVariants") or [{}])[0].get("DesiredInstanceCount") or 1)
    deployment = deployment_for(made.deployment, n, [one["AlarmName"] for one in stopping])
    arguments: Json = {"EndpointName": wanted.name, "EndpointConfigName": older}
    if deployment is not None:
        arguments["DeploymentConfig"] = deployment
    steps = [Step(f"put the alarm {one['AlarmName']}", "cloudwatch", "PutMetricAlarm", one) for one in stopping]
    types = [
        config["ProductionVariants"][0].get("InstanceType")
        for config in (there.config or {}, there.configs[older])
        if config
    ]
    if there.target is not None:
        if len(set(types)) > 1:
            steps.append(
                Step(
                    "take autoscaling off, which AWS demands before another instance type; mme deploy apply puts it back",
                    "application-autoscaling",
                    "DeregisterScalableTarget",
                    scalable(wanted.kind, wanted.name),
                )
            )
        arguments["RetainAllVariantProperties"] = True
    tags = tag_list({ASKED: older, BEFORE: now})
    steps += [
        Step("note what is asked for", "sagemaker", "AddTags", {"ResourceArn": endpoint["EndpointArn"], "Tags": tags}),
        Step(f"go back to {older}", "sagemaker", "UpdateEndpoint", arguments, ENDPOINT_SETTLED),
    ]
    return tuple(steps)


def _watching(alarm: Json, *, now: str, then: str) -> Json:
    """The same alarm on another config's figures, under another name."""
    dimensions = [{**one, "Value": then} if one["Value"] == now else one for one in alarm.get("Dimensions", ())]
    back = {**alarm, "AlarmName": f"{alarm['AlarmName'].rpartition('-')[0]}-{then.rpartition('-')[2]}"}
    return {**back, "Dimensions": dimensions} if dimensions else back


def _renamed_prefixes(names: list[str]) -> tuple[str, ...]:
    return tuple(f"{name.rpartition('-')[0]}-" for name in names)


def _component_back(wanted: Wanted, there: There, to: str | None) -> tuple[Step, ...]:
    component = there.component
    if component is None:
        raise Refused("there is no component")
    now = component["Specification"].get("ModelName", "")
    names = list(there.models)  # the newest first
    older = to or next((name for name in names[names.index(now) + 1 :] if name != now), None) if now in names else to
    if older is None or older not in there.models:
        raise Refused(f"there is no model before {now}; kept are {', '.join(names) or 'none'}")
    needs = component["Specification"]
    specification = {
        key: needs[key]
        for key in ("ComputeResourceRequirements", "StartupParameters", "SchedulingConfig")
        if key in needs
    }
    arguments = {"InferenceComponentName": wanted.name, "Specification": {**specification, "ModelName": older}}
    return (Step(f"go back to {older}", "sagemaker", "UpdateInferenceComponent", arguments, COMPONENT_SETTLED),)


def delete_steps(wanted: Wanted, there: There, *, also_foreign: bool = False) -> tuple[Step, ...]:
    """Raises Refused when the endpoint is somebody else's."""
    if not also_foreign:
        _refuse_foreign(wanted, there, "; --not-ours takes it all the same")
    steps: list[Step] = []

    def call(what: str, service: str, operation: str, arguments: Json, then: str = "") -> None:
        steps.append(Step(what, service, operation, arguments, then))

    endpoint = there.endpoint
    if endpoint is not None and endpoint["EndpointStatus"] in ("Creating", "Updating", "SystemUpdating", "RollingBack"):
        steps.append(
            Step(f"the endpoint is {endpoint['EndpointStatus']}; that has to end first", then=ENDPOINT_SETTLED)
        )
        return tuple(steps)
    names = [name for name in sorted(there.alarms) if name.startswith(alarm_prefix(wanted.name))]
    if names:
        call(f"take {len(names)} alarms away", "cloudwatch", "DeleteAlarms", {"AlarmNames": names})
    of = scalable(wanted.kind, wanted.name)
    for name in there.scheduled:
        call(
            f"take schedule {name} away",
            "application-autoscaling",
            "DeleteScheduledAction",
            {"ScheduledActionName": name, **of},
        )
    for name in there.policies:
        call(f"take policy {name} away", "application-autoscaling", "DeleteScalingPolicy", {"PolicyName": name, **of})
    if there.target is not None:
        call("take autoscaling off", "application-autoscaling", "DeregisterScalableTarget", of)
    for one in there.components:
        name = one["InferenceComponentName"]
        if one["InferenceComponentStatus"] in ("Creating", "Updating"):
            steps.append(
                Step(
                    f"component {name} is {one['InferenceComponentStatus']}; that has to end first",
                    then=COMPONENT_SETTLED,
                )
            )
            return tuple(steps)
        call(
            f"take component {name} down",
            "sagemaker",
            "DeleteInferenceComponent",
            {"InferenceComponentName": name},
            COMPONENT_GONE,
        )
    if endpoint is not None:
        call("take the endpoint down", "sagemaker", "DeleteEndpoint", {"EndpointName": wanted.name}, ENDPOINT_GONE)
    for name in there.configs:
        if is_named(wanted.name, name):
            call(f"take config {name} away", "sagemaker", "DeleteEndpointConfig", {"EndpointConfigName": name})
    for name in there.models:
        if is_named(wanted.name, name):
            call(f"take model {name} away", "sagemaker", "DeleteModel", {"ModelName": name})
    return tuple(steps)


def delete(aws: Aws, wanted: Wanted, *, tell: Tell, pace: Pace, also_foreign: bool = False) -> int:
    """How many calls were made. Raises CommandFailed, NotAsAsked naming what is left."""
    n_calls = 0
    for _ in range(N_ROUNDS):
        steps = delete_steps(wanted, look(aws, wanted), also_foreign=also_foreign)
        if not steps:
            return n_calls
        n_calls += Carrier(aws, wanted, tell, pace).carry_out(steps, looks_again=True)
    raise NotAsAsked(f"left after {N_ROUNDS} rounds: {'; '.join(step.what for step in steps)}")


def _refuse_foreign(wanted: Wanted, there: There, then: str = "") -> None:
    if there.endpoint is not None and there.endpoint_tags.get(DEPLOYMENT) != wanted.name:
        raise Refused(f"endpoint {wanted.name} was not made here: it has no tag {DEPLOYMENT} = {wanted.name}{then}")
