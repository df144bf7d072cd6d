"""Processing jobs: what CreateProcessingJob asks for, and what DescribeProcessingJob answers.

Rule: what is asked for and not played is refused; a field that changes nothing here is echoed.

Source: SageMaker guide, build-your-own-processing-container; its event is not documented, and has the description's fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from container.platform.jobs import channels, training
from container.platform.jobs.life import State
from container.platform.jobs.objects import Address
from container.platform.jobs.plan import OUR_COMMAND, PROCESSING, Output, Plan, hosts_of, program_of
from container.platform.jobs.refusals import not_played, refuse
from container.platform.jobs.tree import MOUNT, below

MAX_RUNTIME_S = 86400
PLACE = f"{MOUNT}/processing/"
ECHOED = (
    *("ProcessingInputs", "ProcessingOutputConfig", "ProcessingJobName", "ProcessingResources", "AppSpecification"),
    *("Environment", "NetworkConfig", "RoleArn", "ExperimentConfig"),
)


def plan_of(asked: Mapping[str, Any], arn: str, environment: Mapping[str, str]) -> Plan:
    """Raises ServiceFault."""
    program, network = asked["AppSpecification"], asked.get("NetworkConfig", {})
    inputs = tuple(_input(one) for one in asked.get("ProcessingInputs", ()))
    outputs = tuple(_output(one) for one in asked.get("ProcessingOutputConfig", {}).get("Outputs", ()))
    names = [one["InputName"] for one in asked.get("ProcessingInputs", ())]
    if len(set(names)) < len(names):
        refuse("Input names must be unique within a processing job.")
    return Plan(
        kind=PROCESSING,
        name=asked["ProcessingJobName"],
        program=program_of(
            program.get("ContainerEntrypoint", ()),
            program.get("ContainerArguments", ()),
            OUR_COMMAND,
        ),
        hosts=hosts_of(_cluster(asked)["InstanceCount"]),
        environment={**environment, **asked.get("Environment", {})},
        folders=("config", "output", "processing"),
        texts=lambda host: _texts(asked, arn, host),
        inputs=inputs,
        outputs=outputs,
        max_runtime_s=_stopping(asked)["MaxRuntimeInSeconds"],
        is_offline=network.get("EnableNetworkIsolation", False),
        region=arn.split(":")[3],
        role=asked["RoleArn"],
    )


def described(asked: Mapping[str, Any], arn: str, state: State) -> dict[str, Any]:
    """DescribeProcessingJob's answer."""
    return {
        **{name: asked[name] for name in ECHOED if name in asked},
        "StoppingCondition": _stopping(asked),
        "ProcessingJobArn": arn,
        "ProcessingJobStatus": state.status,
        "ExitMessage": state.exit_message or None,
        "FailureReason": state.failure or None,
        "ProcessingStartTime": state.started_at,
        "ProcessingEndTime": state.ended_at,
        "LastModifiedTime": state.modified_at,
        "CreationTime": state.created_at,
    }


def summed_up(answer: Mapping[str, Any]) -> dict[str, Any]:
    names = ("ProcessingJobName", "ProcessingJobArn", "CreationTime", "ProcessingEndTime")
    return {name: answer.get(name) for name in (*names, "ProcessingJobStatus", "FailureReason", "ExitMessage")}


def event(answer: Mapping[str, Any]) -> dict[str, Any]:
    return training.event(answer)


def _cluster(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    cluster: Mapping[str, Any] = asked["ProcessingResources"]["ClusterConfig"]
    if cluster.get("InstancePreferences"):
        not_played("CreateProcessingJob with InstancePreferences")
    if not cluster.get("InstanceCount") or not cluster.get("InstanceType"):
        refuse("ClusterConfig must name an InstanceType and an InstanceCount of at least 1.")
    return cluster


def _stopping(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {"MaxRuntimeInSeconds": MAX_RUNTIME_S, **asked.get("StoppingCondition", {})}


def _input(one: Mapping[str, Any]) -> channels.Input:
    source = one.get("S3Input")
    if source is None or one.get("AppManaged"):
        not_played("a processing input of anything but S3")
    if source.get("S3InputMode", "File") != "File":
        not_played("S3InputMode Pipe")
    if source.get("S3CompressionType", "None") != "None":
        refuse("S3CompressionType Gzip can only be used with S3InputMode Pipe.")
    return channels.Input(
        one["InputName"],
        _local(source.get("LocalPath"), one["InputName"]),
        source["S3Uri"],
        source["S3DataType"],
        source.get("S3DataDistributionType") == channels.SHARDED,
    )


def _output(one: Mapping[str, Any]) -> Output:
    target = one.get("S3Output")
    if target is None or one.get("AppManaged"):
        not_played("a processing output to anything but S3")
    return Output(
        _local(target.get("LocalPath"), one["OutputName"]),
        Address.of(target["S3Uri"]),
        is_continuous=target["S3UploadMode"] == "Continuous",
    )


def _local(path: str | None, name: str) -> str:
    if not path or not f"{path}/".startswith(PLACE):
        refuse(f"LocalPath of {name} is {path!r}: it is required, and must begin with {PLACE}")
    try:
        return below(path)
    except ValueError:
        refuse(f"LocalPath of {name} is {path!r}: it must lie below {PLACE}")


def _texts(asked: Mapping[str, Any], arn: str, host: str) -> dict[str, str]:
    program, cluster = asked["AppSpecification"], asked["ProcessingResources"]["ClusterConfig"]
    outputs = asked.get("ProcessingOutputConfig", {})
    config = {
        "ProcessingJobArn": arn,
        "ProcessingJobName": asked["ProcessingJobName"],
        "AppSpecification": {
            "ImageUri": program["ImageUri"],
            "ContainerEntrypoint": program.get("ContainerEntrypoint"),
            "ContainerArguments": program.get("ContainerArguments"),
        },
        "Environment": asked.get("Environment", {}),
        "ProcessingInputs": [
            {
                "InputName": one["InputName"],
                "S3Input": {
                    "S3DataDistributionType": "FullyReplicated",
                    "S3InputMode": "File",
                    "S3CompressionType": "None",
                    "S3DownloadMode": "StartOfJob",
                    **one["S3Input"],
                },
            }
            for one in asked.get("ProcessingInputs", ())
        ],
        "ProcessingOutputConfig": {"Outputs": outputs.get("Outputs", []), "KmsKeyId": outputs.get("KmsKeyId")},
        "ProcessingResources": {"ClusterConfig": {"VolumeKmsKeyId": None, **cluster}},
        "RoleArn": asked["RoleArn"],
        "StoppingCondition": _stopping(asked),
    }
    resources = {"current_host": host, "hosts": hosts_of(cluster["InstanceCount"])}
    return {
        "config/processingjobconfig.json": json.dumps(config),
        "config/resourceconfig.json": json.dumps(resources),
    }
