"""Training jobs: what CreateTrainingJob asks for, and what DescribeTrainingJob answers.

Rule: what is asked for and not played is refused; a field that changes nothing here is echoed.

Sources: botocore's model; SageMaker guide, your-algorithms-training-algo-running-container and
model-train-storage-uncompressed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from container.platform.jobs import channels
from container.platform.jobs.life import State
from container.platform.jobs.objects import Address
from container.platform.jobs.plan import TRAINING, Output, Plan, hosts_of, program_of
from container.platform.jobs.refusals import not_played, refuse
from container.platform.jobs.tree import MOUNT, below

MAX_RUNTIME_S = 86400  # where a request names none. Source: API reference, StoppingCondition
CHECKPOINTS = f"{MOUNT}/checkpoints"
# A spot hour against an hour on demand, by the savings that AWS's notebooks print (69 to 71 %).
SPOT_SHARE = 0.3
ECHOED = (
    *("TrainingJobName", "HyperParameters", "AlgorithmSpecification", "RoleArn", "InputDataConfig", "OutputDataConfig"),
    *("ResourceConfig", "VpcConfig", "EnableNetworkIsolation", "EnableInterContainerTrafficEncryption"),
    *(
        "EnableManagedSpotTraining",
        "CheckpointConfig",
        "DebugHookConfig",
        "ExperimentConfig",
        "DebugRuleConfigurations",
    ),
    *("TensorBoardOutputConfig", "ProfilerConfig", "ProfilerRuleConfigurations", "Environment", "RetryStrategy"),
    *("RemoteDebugConfig", "InfraCheckConfig"),
)


def plan_of(asked: Mapping[str, Any], arn: str, environment: Mapping[str, str]) -> Plan:
    """Raises ServiceFault."""
    _refuse_unplayed(asked)
    algorithm, resources = _algorithm(asked), _resources(asked)
    inputs = tuple(_input(one) for one in asked.get("InputDataConfig", ()))
    if len({one.name for one in inputs}) < len(inputs):
        refuse("Channel names must be unique within a training job.")
    stopping = stopping_of(asked)
    checkpoints = _checkpoints(asked)
    return Plan(
        kind=TRAINING,
        name=asked["TrainingJobName"],
        program=program_of(
            algorithm.get("ContainerEntrypoint", ()),
            algorithm.get("ContainerArguments", ()),
            ("train",),
        ),
        hosts=hosts_of(resources["InstanceCount"]),
        environment={
            **environment,
            **asked.get("Environment", {}),
            "TRAINING_JOB_NAME": asked["TrainingJobName"],
            "TRAINING_JOB_ARN": arn,
        },
        folders=("input/config", "input/data", "model", "output/data"),
        texts=lambda host: _texts(asked, host),
        inputs=inputs,
        outputs=_outputs(asked),
        keeps_outputs=True,
        checkpoints=checkpoints,
        metrics=_metrics(algorithm),
        max_runtime_s=stopping["MaxRuntimeInSeconds"],
        max_wait_s=stopping.get("MaxWaitTimeInSeconds"),
        is_spot=asked.get("EnableManagedSpotTraining", False),
        is_offline=asked.get("EnableNetworkIsolation", False),
        region=arn.split(":")[3],
        role=asked["RoleArn"],
    )


def described(asked: Mapping[str, Any], arn: str, state: State) -> dict[str, Any]:
    """DescribeTrainingJob's answer."""
    is_spot = asked.get("EnableManagedSpotTraining", False)
    busy_s = round(state.busy_s)
    return {
        **{name: asked[name] for name in ECHOED if name in asked},
        "TrainingJobArn": arn,
        "ModelArtifacts": {"S3ModelArtifacts": model_uri(asked)},
        "TrainingJobStatus": state.status,
        "SecondaryStatus": state.secondary,
        "FailureReason": state.failure or None,
        "StoppingCondition": stopping_of(asked),
        "CreationTime": state.created_at,
        "TrainingStartTime": state.started_at,
        "TrainingEndTime": state.ended_at,
        "LastModifiedTime": state.modified_at,
        "SecondaryStatusTransitions": [
            {"Status": one.status, "StartTime": one.at, "StatusMessage": one.message}
            | ({"EndTime": one.ended_at} if one.ended_at else {})
            for one in state.transitions
        ],
        "FinalMetricDataList": [
            {"MetricName": name, "Value": value, "Timestamp": at} for name, value, at in state.metrics
        ]
        or None,
        "EnableNetworkIsolation": asked.get("EnableNetworkIsolation", False),
        "EnableInterContainerTrafficEncryption": asked.get("EnableInterContainerTrafficEncryption", False),
        "EnableManagedSpotTraining": is_spot,
        "TrainingTimeInSeconds": max(1, busy_s) if state.is_over and state.started_at else None,
        "BillableTimeInSeconds": max(1, round(busy_s * (SPOT_SHARE if is_spot else 1)))
        if state.is_over and state.started_at
        else None,
    }


def summed_up(answer: Mapping[str, Any]) -> dict[str, Any]:
    names = ("TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingEndTime")
    return {name: answer.get(name) for name in (*names, "TrainingJobStatus", "SecondaryStatus")}


def event(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The detail of its state change, as the guide shows it: times are milliseconds, as text."""
    left_out = (
        "ModelArtifacts",
        "FinalMetricDataList",
        "EnableNetworkIsolation",
        "EnableInterContainerTrafficEncryption",
    )
    return {name: _told(value) for name, value in answer.items() if value is not None and name not in left_out} | {
        "Tags": {}
    }


def model_uri(asked: Mapping[str, Any]) -> str:
    if _is_packed(asked):
        return f"{_home(asked)}/model.tar.gz"
    return f"{_home(asked)}/model/"


def stopping_of(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {"MaxRuntimeInSeconds": MAX_RUNTIME_S, **asked.get("StoppingCondition", {})}


def _home(asked: Mapping[str, Any]) -> str:
    return f"{asked['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{asked['TrainingJobName']}/output"


def _is_packed(asked: Mapping[str, Any]) -> bool:
    return bool(asked["OutputDataConfig"].get("CompressionType", "GZIP") == "GZIP")


def _outputs(asked: Mapping[str, Any]) -> tuple[Output, ...]:
    home, is_tar = Address.of(_home(asked)), _is_packed(asked)
    if is_tar:
        return (
            Output("model", home.below("model.tar.gz"), is_tar=True),
            Output("output/data", home.below("output.tar.gz"), is_tar=True),
        )
    return Output("model", home.below("model")), Output("output/data", home.below("data"))


def _algorithm(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    algorithm: Mapping[str, Any] = asked.get("AlgorithmSpecification", {})
    if not algorithm.get("TrainingImage"):
        if algorithm.get("AlgorithmName"):
            not_played("CreateTrainingJob with AlgorithmName")
        refuse("AlgorithmSpecification must name a TrainingImage or an AlgorithmName.")
    return algorithm


def _metrics(algorithm: Mapping[str, Any]) -> dict[str, re.Pattern[str]]:
    found = {}
    for one in algorithm.get("MetricDefinitions", ()):
        try:
            found[one["Name"]] = re.compile(one["Regex"])
        except re.error as error:
            refuse(f"The Regex of metric {one['Name']} is none: {error}")
    return found


def _resources(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    resources: Mapping[str, Any] = asked.get("ResourceConfig", {})
    for name in ("InstanceGroups", "InstancePreferences", "TrainingPlanArn"):
        if resources.get(name):
            not_played(f"CreateTrainingJob with ResourceConfig.{name}")
    if not resources.get("InstanceType") or not resources.get("InstanceCount"):
        refuse("ResourceConfig must name an InstanceType and an InstanceCount of at least 1.")
    if resources.get("VolumeSizeInGB", 0) < 1:
        refuse("ResourceConfig must have a VolumeSizeInGB of at least 1.")
    return resources


def _refuse_unplayed(asked: Mapping[str, Any]) -> None:
    stopping = stopping_of(asked)
    longest, waits = stopping["MaxRuntimeInSeconds"], stopping.get("MaxWaitTimeInSeconds")
    if asked.get("EnableManagedSpotTraining"):
        if waits is None or waits < longest:
            refuse(
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"
            )
    elif waits is not None:
        refuse("MaxWaitTimeInSeconds is supported for managed spot training only: set EnableManagedSpotTraining")


def _input(channel: Mapping[str, Any]) -> channels.Input:
    source = channel["DataSource"].get("S3DataSource")
    if source is None:
        not_played("a channel of anything but S3")
    if channel.get("InputMode") == "Pipe":
        not_played("InputMode Pipe")
    if source["S3DataType"] not in (channels.PREFIX, channels.MANIFEST):
        not_played(f"S3DataType {source['S3DataType']}")
    if channel.get("CompressionType", "None") != "None":
        refuse(f"CompressionType of channel {channel['ChannelName']} is used only in Pipe input mode.")
    return channels.Input(
        channel["ChannelName"],
        f"input/data/{channel['ChannelName']}",
        source["S3Uri"],
        source["S3DataType"],
        source.get("S3DataDistributionType") == channels.SHARDED,
    )


def _checkpoints(asked: Mapping[str, Any]) -> Output | None:
    config = asked.get("CheckpointConfig")
    if not config:
        return None
    try:
        path = below(config.get("LocalPath", CHECKPOINTS))
    except ValueError:
        not_played(f"CheckpointConfig.LocalPath outside of {MOUNT}")
    return Output(path, Address.of(config["S3Uri"]), is_continuous=True)


def _texts(asked: Mapping[str, Any], host: str) -> dict[str, str]:
    resources = asked["ResourceConfig"]
    hosts = hosts_of(resources["InstanceCount"])
    mode = asked["AlgorithmSpecification"]["TrainingInputMode"]
    files: dict[str, Any] = {
        "hyperparameters": dict(asked.get("HyperParameters", {})),
        "resourceconfig": {
            "current_host": host,
            "hosts": hosts,
            "network_interface_name": "lo",
            "current_instance_type": resources["InstanceType"],
            "current_group_name": "homogeneousCluster",
            "instance_groups": [
                {
                    "instance_group_name": "homogeneousCluster",
                    "instance_type": resources["InstanceType"],
                    "hosts": hosts,
                }
            ],
        },
        "inputdataconfig": {
            channel["ChannelName"]: {
                "TrainingInputMode": channel.get("InputMode", mode),
                "S3DistributionType": channel["DataSource"]["S3DataSource"].get(
                    "S3DataDistributionType", "FullyReplicated"
                ),
                "RecordWrapperType": channel.get("RecordWrapperType", "None"),
            }
            | ({"ContentType": channel["ContentType"]} if channel.get("ContentType") else {})
            for channel in asked.get("InputDataConfig", ())
        },
    }
    if asked.get("CheckpointConfig"):
        files["checkpointconfig"] = {
            "LocalPath": CHECKPOINTS,
            **asked["CheckpointConfig"],
        }
    return {f"input/config/{name}.json": json.dumps(value) for name, value in files.items()}


def _told(value: Any) -> Any:
    if isinstance(value, datetime):
        return str(round(value.timestamp() * 1000))
    if isinstance(value, Mapping):
        return {name: _told(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_told(one) for one in value]
    return value
