"""The same as CloudFormation: what `apply` would send, as one template, with the execution role and a budget.

Rule: nothing is described twice. Requests of `resources.py` become properties; what differs is names that refer to each other
and the few members that CloudFormation spells in its own way.

Source: CloudFormation's resource specification, as cfn-lint carries it.
"""

from __future__ import annotations

from container.operate.deploy.file import MULTI_MODEL, Wanted
from container.operate.deploy.names import Json
from container.operate.deploy.policies import execution_policy, trust_policy
from container.operate.deploy.resources import WAKE_POLICY, alarm_word, deployment_for, resources

Template = Json


def template(wanted: Wanted, memory_mib: int, *, with_role: bool = True, mail: str = "") -> Template:
    """with_role: make the execution role, too, instead of naming the file's; mail: whom the budget tells."""
    made = resources(wanted, memory_mib)
    role: object = {"Fn::GetAtt": ["Role", "Arn"]} if with_role else wanted.role
    found: dict[str, Json] = {}
    if with_role:
        found["Role"] = _of("AWS::IAM::Role", {
            "AssumeRolePolicyDocument": trust_policy(),
            "Policies": [{"PolicyName": f"{wanted.name}-endpoint", "PolicyDocument": execution_policy(wanted)}],
            "Tags": made.model["Tags"],
        })  # fmt: skip
    found["Model"] = _of("AWS::SageMaker::Model", {**_without(made.model, "ModelName"), "ExecutionRoleArn": role})
    found["Config"] = _of("AWS::SageMaker::EndpointConfig", _config(made.config, role))
    endpoint = {
        **_without(made.endpoint, "EndpointConfigName"),
        "EndpointConfigName": {"Fn::GetAtt": ["Config", "EndpointConfigName"]},
    }
    n = 1 if wanted.instances is None else max(1, wanted.instances.least)
    stopping = [{"AlarmName": {"Ref": _logical(name)}} for name in made.rollback_alarms]
    deployment = deployment_for(made.deployment, n, [])
    if deployment is not None:
        endpoint["DeploymentConfig"] = deployment | (
            {"AutoRollbackConfiguration": {"Alarms": stopping}} if stopping else {}
        )
    if wanted.kind == MULTI_MODEL and made.target is not None:
        endpoint["RetainAllVariantProperties"] = True
    found["Endpoint"] = _of("AWS::SageMaker::Endpoint", endpoint)
    if made.component is not None:
        specification = {**made.component["Specification"], "ModelName": {"Fn::GetAtt": ["Model", "ModelName"]}}
        found["Component"] = _of(
            "AWS::SageMaker::InferenceComponent",
            {
                **_without(made.component, "EndpointName"),
                "EndpointName": {"Fn::GetAtt": ["Endpoint", "EndpointName"]},
                "Specification": specification,
            },
        )
    if made.target is not None:
        found |= _scaling(made.target, made.policies, made.schedule, "Component" if made.component else "Endpoint")
    for alarm in made.alarms:
        found[_logical(alarm["AlarmName"])] = _of("AWS::CloudWatch::Alarm", _alarm(alarm))
    found["Budget"] = _of("AWS::Budgets::Budget", _budget(wanted, mail))
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"Endpoint {wanted.name}, as mme deploy apply makes it of the same file",
        "Resources": found,
    }


def _of(kind: str, properties: Json, **rest: object) -> Json:
    return {"Type": kind, "Properties": properties, **rest}


def _without(request: Json, *names: str) -> Json:
    return {key: value for key, value in request.items() if key not in names}


def _config(request: Json, role: object) -> Json:
    made = _without(request, "EndpointConfigName")
    variants = []
    for variant in made["ProductionVariants"]:
        one = dict(variant)
        if "ModelName" in one:
            one["ModelName"] = {"Fn::GetAtt": ["Model", "ModelName"]}
        variants.append(one)
    made["ProductionVariants"] = variants
    if "ExecutionRoleArn" in made:
        made["ExecutionRoleArn"] = role
    return made


def _scaling(target: Json, policies: tuple[Json, ...], schedule: tuple[Json, ...], after: str) -> dict[str, Json]:
    properties = dict(target)
    if schedule:
        properties["ScheduledActions"] = [
            {key: one[key] for key in ("ScheduledActionName", "Schedule", "Timezone", "ScalableTargetAction")}
            for one in schedule
        ]
    found = {"Target": _of("AWS::ApplicationAutoScaling::ScalableTarget", properties, DependsOn=after)}
    for policy in policies:
        name = "TrackPolicy" if policy["PolicyType"] == "TargetTrackingScaling" else "WakePolicy"
        kept = _without(policy, "ServiceNamespace", "ResourceId", "ScalableDimension")
        found[name] = _of("AWS::ApplicationAutoScaling::ScalingPolicy", {**kept, "ScalingTargetId": {"Ref": "Target"}})
    return found


def _alarm(request: Json) -> Json:
    made = {**request, "AlarmName": request["AlarmName"].rpartition("-")[0]}  # changed in place, it needs no digest
    made["AlarmActions"] = [{"Ref": "WakePolicy"} if one == WAKE_POLICY else one for one in request["AlarmActions"]]
    for actions in ("AlarmActions", "InsufficientDataActions"):
        if not made.get(actions, True):
            del made[actions]
    if "Dimensions" in made:
        # The alarm is moved to the new config before the endpoint is, as the endpoint names the alarm.
        config = {"Fn::GetAtt": ["Config", "EndpointConfigName"]}
        made["Dimensions"] = [
            {**one, "Value": config} if one["Name"] == "EndpointConfigName" else one for one in made["Dimensions"]
        ]
    return made


def _budget(wanted: Wanted, mail: str) -> Json:
    """It warns; it cannot stop an endpoint. Source: AWS Budgets' actions."""
    made: Json = {
        "Budget": {
            "BudgetName": f"mme-{wanted.name}",
            "BudgetType": "COST",
            "TimeUnit": "MONTHLY",
            "BudgetLimit": {"Amount": wanted.month_usd, "Unit": "USD"},
            "CostFilters": {"Service": ["Amazon SageMaker"]},
        }
    }
    if mail:
        made["NotificationsWithSubscribers"] = [
            {
                "Notification": {
                    "NotificationType": kind,
                    "ComparisonOperator": "GREATER_THAN",
                    "Threshold": 100,
                    "ThresholdType": "PERCENTAGE",
                },
                "Subscribers": [{"SubscriptionType": "EMAIL", "Address": mail}],
            }
            for kind in ("FORECASTED", "ACTUAL")
        ]
    return made


def _logical(alarm: str) -> str:
    return "".join(part.capitalize() for part in alarm_word(alarm).split("-")) + "Alarm"
