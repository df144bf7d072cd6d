"""What a file stands for at AWS: the requests that make it, member by member as the API spells them.

Rule: nothing here asks or decides. `apply` sends these requests, `template` writes the same as CloudFormation, and both
change together because there is one description.

Sources: botocore's models of sagemaker, application-autoscaling and cloudwatch; SageMaker guide,
endpoint-auto-scaling-zero-instances (both policies, the wake alarm), deployment-guardrails-configuration (alarms on the new
config's dimension).
"""

from __future__ import annotations

from dataclasses import dataclass

from container.operate.deploy.file import ALL_AT_ONCE, CANARY, LINEAR, MULTI_MODEL, ROLLING, SERVERLESS, ZERO, Wanted
from container.operate.deploy.names import (
    DEPLOYMENT,
    VARIANT,
    Json,
    alarm_prefix,
    digest,
    named,
    policy_prefix,
    tag_list,
)

NAMESPACE = "sagemaker"  # Application Auto Scaling's for all of SageMaker
WAKE_POLICY = "@wake"  # in an alarm's actions: the ARN of the policy that wakes, known only when that is there
MODEL_METRICS, MACHINE_METRICS = "AWS/SageMaker", "/aws/sagemaker/Endpoints"
NO_CAPACITY = "NoCapacityInvocationFailures"
WAKE_COOLDOWN_S = 60


@dataclass(frozen=True, slots=True)
class Resources:
    """Arguments of the calls that make each thing. None: the kind has no such thing.

    target, policies, schedule   of Application Auto Scaling; nothing where the file fixes the count
    alarms                       an action may be WAKE_POLICY
    deployment                   UpdateEndpoint's DeploymentConfig for a fleet of two or more
    """

    model: Json
    config: Json
    endpoint: Json
    deployment: Json | None
    component: Json | None
    target: Json | None
    policies: tuple[Json, ...]
    alarms: tuple[Json, ...]
    schedule: tuple[Json, ...]

    @property
    def config_name(self) -> str:
        return str(self.config["EndpointConfigName"])

    @property
    def rollback_alarms(self) -> list[str]:
        """Names of those that stop an update."""
        return [one["AlarmName"] for one in self.alarms if alarm_word(one["AlarmName"]) in STOP_UPDATES]


def resources(wanted: Wanted, memory_mib: int = 0) -> Resources:
    """memory_mib: what a copy reserves, where the kind has copies."""
    tags = tag_list({**dict(wanted.tags), DEPLOYMENT: wanted.name})
    model = _model(wanted, tags)
    config = _config(wanted, model["ModelName"], tags)
    target = _target(wanted)
    policies = _policies(wanted, target)
    return Resources(
        model=model,
        config=config,
        endpoint={"EndpointName": wanted.name, "EndpointConfigName": config["EndpointConfigName"], "Tags": tags},
        deployment=_deployment(wanted),
        component=_component(wanted, model["ModelName"], memory_mib, tags) if wanted.kind == ZERO else None,
        target=target,
        policies=policies,
        alarms=_alarms(wanted, config["EndpointConfigName"], tags),
        schedule=_schedule(wanted, target),
    )


def scalable(kind: str, name: str) -> Json:
    """What Application Auto Scaling calls the thing that is scaled."""
    if kind == ZERO:
        return {
            "ServiceNamespace": NAMESPACE,
            "ResourceId": f"inference-component/{name}",
            "ScalableDimension": "sagemaker:inference-component:DesiredCopyCount",
        }
    return {
        "ServiceNamespace": NAMESPACE,
        "ResourceId": f"endpoint/{name}/variant/{VARIANT}",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }


def invocation(wanted: Wanted, target: str, body: bytes) -> Json:
    """A call of one model: where the target goes, each kind has its own place."""
    made: Json = {"EndpointName": wanted.name, "ContentType": "text/csv", "Body": body}
    if wanted.kind == MULTI_MODEL:
        return {**made, "TargetModel": target}
    component = {"InferenceComponentName": wanted.name} if wanted.kind == ZERO else {}
    return {**made, **component, "CustomAttributes": f"TargetModel={target}"}


def _model(wanted: Wanted, tags: list[Json]) -> Json:
    container: Json = {"Image": wanted.image, "Environment": dict(wanted.environment)}
    if wanted.kind == MULTI_MODEL:
        container |= {
            "Mode": "MultiModel",
            "ModelDataUrl": wanted.models,
            "MultiModelConfig": {"ModelCacheSetting": "Enabled"},
        }
    else:
        container["Environment"] |= {"MME_MODELS": wanted.models}
        if wanted.warm_list:
            container["Environment"] = {
                "MME_WARM": "beside", "MME_ENDPOINT_NAME": wanted.name, **container["Environment"],
            }  # fmt: skip
    made = {"PrimaryContainer": container, "ExecutionRoleArn": wanted.role}
    return {"ModelName": named(wanted.name, made), **made, "Tags": tags}


def _config(wanted: Wanted, model: str, tags: list[Json]) -> Json:
    variant: Json = {"VariantName": VARIANT, "InitialVariantWeight": 1.0}
    made: Json = {"ProductionVariants": [variant]}
    if wanted.kind == SERVERLESS:
        assert wanted.serverless is not None
        variant |= {
            "ModelName": model,
            "ServerlessConfig": {
                "MemorySizeInMB": wanted.serverless.memory_gb * 1024,
                "MaxConcurrency": wanted.serverless.concurrency,
            },
        }
        return {"EndpointConfigName": named(wanted.name, made), **made, "Tags": tags}
    assert wanted.instances is not None
    variant |= {"InstanceType": wanted.instances.type}
    if wanted.kind == ZERO:
        assert wanted.zero is not None
        variant |= {
            "ManagedInstanceScaling": {
                "Status": "ENABLED",
                "MinInstanceCount": 0,
                "MaxInstanceCount": wanted.instances.most,
            },
            "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
            "ContainerStartupHealthCheckTimeoutInSeconds": wanted.zero.start_s,
        }
        made["ExecutionRoleArn"] = wanted.role  # without it components are refused: measured by stdapi.ai#43
    else:
        variant |= {"ModelName": model}
    name = named(wanted.name, made)
    variant["InitialInstanceCount"] = max(1, wanted.instances.least)  # not content: it changes in place
    return {"EndpointConfigName": name, **made, "Tags": tags}


def _deployment(wanted: Wanted) -> Json | None:
    update = wanted.update
    if wanted.kind == ZERO:
        return None
    if update.way == ROLLING and wanted.kind == MULTI_MODEL:
        return {
            "RollingUpdatePolicy": {
                "MaximumBatchSize": _share(update.step_percent),
                "WaitIntervalInSeconds": update.wait_s,
                "MaximumExecutionTimeoutInSeconds": update.most_s,
            }
        }
    way = update.way if wanted.kind == MULTI_MODEL else ALL_AT_ONCE
    routing: Json = {
        "Type": {ALL_AT_ONCE: "ALL_AT_ONCE", CANARY: "CANARY", LINEAR: "LINEAR"}[way],
        "WaitIntervalInSeconds": update.wait_s,
    }
    if way == CANARY:
        routing["CanarySize"] = _share(update.step_percent)
    elif way == LINEAR:
        routing["LinearStepSize"] = _share(update.step_percent)
    return {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": routing,
            "TerminationWaitInSeconds": update.old_s,
            "MaximumExecutionTimeoutInSeconds": update.most_s,
        }
    }


def deployment_for(deployment: Json | None, n_instances: int, alarms: list[str]) -> Json | None:
    """The same for a fleet of so many, stopped by those alarms. A step is half a fleet at most, which one machine has not."""
    if deployment is None:
        return None
    made = dict(deployment)
    blue_green = made.get("BlueGreenUpdatePolicy")
    if n_instances < 2:
        policy = blue_green or {
            "MaximumExecutionTimeoutInSeconds": made["RollingUpdatePolicy"]["MaximumExecutionTimeoutInSeconds"]
        }
        waits_s = (blue_green or {}).get("TrafficRoutingConfiguration", {}).get("WaitIntervalInSeconds", 0)
        routing = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": waits_s}
        made = {"BlueGreenUpdatePolicy": {**policy, "TrafficRoutingConfiguration": routing}}
    if alarms:
        made["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in alarms]}
    return made


def _share(percent: int) -> Json:
    return {"Type": "CAPACITY_PERCENT", "Value": percent}


def _component(wanted: Wanted, model: str, memory_mib: int, tags: list[Json]) -> Json:
    assert wanted.zero is not None
    return {
        "InferenceComponentName": wanted.name,
        "EndpointName": wanted.name,
        "VariantName": VARIANT,
        "Specification": {
            "ModelName": model,
            "ComputeResourceRequirements": {
                "NumberOfCpuCoresRequired": wanted.zero.cores,
                "MinMemoryRequiredInMb": memory_mib,
            },
            "StartupParameters": {"ContainerStartupHealthCheckTimeoutInSeconds": wanted.zero.start_s},
        },
        "RuntimeConfig": {"CopyCount": 1},  # 0 is refused, whatever the model of the API says: measured by stdapi.ai#43
        "Tags": tags,
    }


def _target(wanted: Wanted) -> Json | None:
    if not wanted.is_scaled:
        return None
    assert wanted.instances is not None
    if wanted.zero is not None:
        bounds = {"MinCapacity": 0, "MaxCapacity": wanted.zero.copies}
    else:
        bounds = {"MinCapacity": wanted.instances.least, "MaxCapacity": wanted.instances.most}
    return {**scalable(wanted.kind, wanted.name), **bounds}


def _policies(wanted: Wanted, target: Json | None) -> tuple[Json, ...]:
    if target is None:
        return ()
    assert wanted.scaling is not None
    of = scalable(wanted.kind, wanted.name)
    metric = (
        "SageMakerInferenceComponentInvocationsPerCopy"
        if wanted.kind == ZERO
        else "SageMakerVariantInvocationsPerInstance"
    )
    made: list[Json] = [
        {
            "PolicyType": "TargetTrackingScaling",
            "TargetTrackingScalingPolicyConfiguration": {
                "TargetValue": wanted.scaling.calls_a_minute,
                "PredefinedMetricSpecification": {"PredefinedMetricType": metric},
                "ScaleOutCooldown": wanted.scaling.out_s,
                "ScaleInCooldown": wanted.scaling.in_s,
                "DisableScaleIn": False,
            },
        }
    ]
    if wanted.kind == ZERO:  # target tracking alone never leaves zero
        made.append(
            {
                "PolicyType": "StepScaling",
                "StepScalingPolicyConfiguration": {
                    "AdjustmentType": "ChangeInCapacity",
                    "MetricAggregationType": "Maximum",
                    "Cooldown": WAKE_COOLDOWN_S,
                    "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
                },
            }
        )
    words = ("track", "wake")
    return tuple(
        {"PolicyName": f"{policy_prefix(wanted.name)}{word}-{digest(one)}", **of, **one}
        for word, one in zip(words, made, strict=False)
    )


STOP_UPDATES = ("5xx", "model-errors", "latency")


def alarm_word(alarm: str) -> str:
    """`5xx`, of mme/prices/5xx-0123456789."""
    return alarm.rsplit("/", 1)[-1].rsplit("-", 1)[0]


def _alarms(wanted: Wanted, config: str, tags: list[Json]) -> tuple[Json, ...]:
    asked = wanted.alarms
    if wanted.kind == ZERO:
        dimensions = {"InferenceComponentName": wanted.name}
    else:  # the new fleet alone: without its config's name an alarm would also watch the old one
        dimensions = {"EndpointName": wanted.name, "VariantName": VARIANT, "EndpointConfigName": config}
    usual = {
        "Namespace": MODEL_METRICS,
        "Dimensions": _dimensions(dimensions),
        "Period": 60,
        "EvaluationPeriods": asked.minutes,
        "DatapointsToAlarm": asked.minutes,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "notBreaching",
        "AlarmActions": list(asked.tell),
    }
    made: dict[str, Json] = {}
    if asked.errors_5xx:
        made["5xx"] = {
            **usual, "MetricName": "Invocation5XXErrors", "Statistic": "Sum", "Threshold": float(asked.errors_5xx),
            "AlarmDescription": "calls end with 5XX",
        }  # fmt: skip
    if asked.model_errors:
        made["model-errors"] = {
            **usual, "MetricName": "InvocationModelErrors", "Statistic": "Sum", "Threshold": float(asked.model_errors),
            "AlarmDescription": "the container answers with errors",
        }  # fmt: skip
    if asked.latency_ms:
        made["latency"] = {
            **usual, "MetricName": "ModelLatency", "ExtendedStatistic": "p99", "Threshold": asked.latency_ms * 1000.0,
            "AlarmDescription": "the slowest hundredth of calls is slower than it may be",
        }  # fmt: skip
    if wanted.kind == ZERO:
        made["wake"] = _wake_alarm(wanted.name)
    if asked.idle_hours and wanted.kind == ZERO:
        made["awake"] = _awake_alarm(wanted)
    elif asked.idle_hours and wanted.kind == MULTI_MODEL:
        made["idle"] = _idle_alarm(wanted)
    return tuple(
        {"AlarmName": f"{alarm_prefix(wanted.name)}{word}-{digest(one)}", **one, "Tags": tags}
        for word, one in made.items()
    )


def _wake_alarm(name: str) -> Json:
    return {
        "AlarmDescription": "a call found no copy; wakes one",
        "Namespace": MODEL_METRICS,
        "MetricName": NO_CAPACITY,
        "Dimensions": _dimensions({"InferenceComponentName": name}),
        "Statistic": "Maximum",
        "Period": 30,
        "EvaluationPeriods": 1,
        "DatapointsToAlarm": 1,
        "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "missing",
        "AlarmActions": [WAKE_POLICY],
    }


def _idle_alarm(wanted: Wanted) -> Json:
    """Nobody has called for so many hours since the last call.

    An hour without a call has no figure. Taken as a breach, that would ring as soon as the alarm is made: CloudWatch looks at
    the hours before that, too. So it counts as missing: an alarm begins in INSUFFICIENT_DATA, the first call brings it to OK,
    and its actions of INSUFFICIENT_DATA are done only when it comes there from another state, which is when all hours have
    passed without a call. Those that nobody has ever called are the doctor's. Source: CloudWatch guide,
    alarms-and-missing-data; CloudWatch API, MetricAlarm.
    """
    return {
        "AlarmDescription": "machines run and nobody calls",
        "Namespace": MODEL_METRICS,
        "MetricName": "Invocations",
        "Dimensions": _dimensions({"EndpointName": wanted.name, "VariantName": VARIANT}),
        "Statistic": "Sum",
        "Period": 3600,
        "EvaluationPeriods": wanted.alarms.idle_hours,
        "DatapointsToAlarm": wanted.alarms.idle_hours,
        "Threshold": 1.0,
        "ComparisonOperator": "LessThanThreshold",
        "TreatMissingData": "missing",
        "AlarmActions": list(wanted.alarms.tell),
        "InsufficientDataActions": list(wanted.alarms.tell),
    }


def _awake_alarm(wanted: Wanted) -> Json:
    """A machine has run in each of so many hours: what should sleep at times never did. At zero there is no figure."""
    return {
        "AlarmDescription": "it has not been at zero for hours",
        "Namespace": MACHINE_METRICS,
        "MetricName": "CPUUtilization",
        "Dimensions": _dimensions({"EndpointName": wanted.name, "VariantName": VARIANT}),
        "Statistic": "SampleCount",
        "Period": 3600,
        "EvaluationPeriods": wanted.alarms.idle_hours,
        "DatapointsToAlarm": wanted.alarms.idle_hours,
        "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "notBreaching",
        "AlarmActions": list(wanted.alarms.tell),
    }


def _dimensions(pairs: dict[str, str]) -> list[Json]:
    return [{"Name": name, "Value": value} for name, value in pairs.items()]


def _schedule(wanted: Wanted, target: Json | None) -> tuple[Json, ...]:
    """Nights: no copy may be there, so no call wakes one. A bound of 0 ends what runs; source: PutScheduledAction."""
    if target is None or wanted.zero is None or not wanted.zero.nights:
        return ()
    off, on = wanted.zero.nights.split("-")
    of = scalable(wanted.kind, wanted.name)
    return tuple(
        {
            "ScheduledActionName": f"{policy_prefix(wanted.name)}{word}",
            **of,
            "Schedule": f"cron(0 {int(hour)} * * ? *)",
            "Timezone": wanted.zero.timezone,
            "ScalableTargetAction": {"MinCapacity": 0, "MaxCapacity": most},
        }
        for word, hour, most in (("off", off, 0), ("on", on, wanted.zero.copies))
    )
